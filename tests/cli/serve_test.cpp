// A tuned use case is served, tuned again under the server's feet, and stopped; contents are stored where asked for.

#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "program.h"
#include "serve/contents_rows.h"
#include "serve/http_client.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using testing::HasSubstr;

class Serve : public test::JobTest {
 protected:
  void TearDown() override {
    if (server_ > 0) {
      ::kill(server_, SIGKILL);
      ::waitpid(server_, nullptr, 0);
    }
    JobTest::TearDown();
  }

  // `thimble serve JOB --port 0 MORE`, once it says where it listens.
  void serve(const std::vector<std::string>& more = {}) {
    const std::string log = (folder_ / "serve.log").string(), folder = folder_.string();
    std::vector<std::string> words = {"thimble", "--threads", "1", "serve", folder, "--port", "0"};
    words.insert(words.end(), more.begin(), more.end());
    server_ = ::fork();
    if (server_ == 0) {
      if (std::freopen(log.c_str(), "w", stdout) == nullptr || std::freopen("/dev/null", "w", stderr) == nullptr)
        ::_exit(126);
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execv(THIMBLE_BINARY, arguments.data());
      ::_exit(127);
    }
    for (int i = 0; i < 500 && port_ == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      const std::string said = test::text_of(log);
      const size_t colon = said.find("127.0.0.1:");
      if (colon != std::string::npos && said.find('\n') != std::string::npos)
        port_ = static_cast<uint16_t>(std::stoi(said.substr(colon + 10)));
    }
    ASSERT_GT(port_, 0) << test::text_of(log);
  }

  // Its exit status, once it was asked to end.
  int end() {
    ::kill(server_, SIGTERM);
    int status = -1;
    ::waitpid(server_, &status, 0);
    server_ = 0;
    port_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  HttpAnswer ask(const std::string& method, const std::string& path, const Json& body = nullptr) const {
    Client client = Client::tcp(port_);
    const std::string text = body.is_null() ? "" : body.dump();
    client.send(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
                std::to_string(text.size()) + "\r\n\r\n" + text);
    return client.answer();
  }
  Json call(const std::string& model, const std::string& query, const std::string& choice = "auto") const {
    const HttpAnswer answer = ask("POST", "/v1/chat/completions",
                                  {{"model", model},
                                   {"max_tokens", 100},
                                   {"tool_choice", choice},
                                   {"parallel_tool_calls", false},
                                   {"messages", Json::array({{{"role", "user"}, {"content", query}}})}});
    EXPECT_EQ(answer.status, 200) << answer.body;
    return Json::parse(answer.body);
  }
  std::string description(const std::string& model) const {
    return Json::parse(ask("GET", "/v1/models/" + model).body).value("description", "");
  }

  pid_t server_ = 0;
  uint16_t port_ = 0;
};

TEST_F(Serve, ATunedJobCallsItsTools) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  ASSERT_EQ(test::thimble("tune " + job()).status, 0);
  serve();
  const Json choice = call("lamp", "lamp on 3", "required")["choices"][0];
  ASSERT_EQ(choice["finish_reason"], "tool_calls") << choice;
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "lamp");
  EXPECT_THAT(choice["message"]["tool_calls"][0]["function"]["arguments"].get<std::string>(),
              testing::StartsWith("{\"on\": "));
  const Json models = Json::parse(ask("GET", "/v1/models").body)["data"];
  ASSERT_EQ(models.size(), 2u);  // and its base
  EXPECT_EQ(models[0]["parent"], models[1]["id"]);
  EXPECT_FALSE(call(models[1]["id"], "lamp on 3")["choices"][0]["message"].contains("tool_calls"));

  EXPECT_EQ(end(), 0);
}

TEST_F(Serve, ANewRunIsPickedUpAndAdaptersComeAndGo) {
  THIMBLE_REQUIRE_STORIES();
  const std::string few = "rank = 4\nlearning_rate = 0.02\nepochs = 1\nbatch_rows = 4\ndev_share = 0.1\nevaluations = 1\n";
  write_job("description = \"first\"\n", "", few);
  ASSERT_EQ(test::thimble("tune " + job()).status, 0);
  const fs::path first = run() / "adapter";
  serve();
  EXPECT_EQ(description("lamp"), "first");

  const HttpAnswer opened = ask("POST", "/v1/adapters", {{"name", "old"}, {"path", first.string()}});
  EXPECT_EQ(opened.status, 200) << opened.body;
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // runs are named by the second
  write_job("description = \"second\"\n", "", few);
  ASSERT_EQ(test::thimble("tune " + job()).status, 0);
  for (int i = 0; i < 400 && description("lamp") != "second"; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(25));
  EXPECT_EQ(description("lamp"), "second");
  EXPECT_EQ(description("old"), "first");
  EXPECT_EQ(call("old", "lamp on 3")["model"], "old");

  EXPECT_EQ(ask("DELETE", "/v1/adapters/old").status, 200);
  EXPECT_EQ(ask("GET", "/v1/models/old").status, 404);
  EXPECT_EQ(ask("DELETE", "/v1/adapters/old").status, 404);
  EXPECT_EQ(ask("POST", "/v1/adapters", {{"name", "none"}, {"path", "/nowhere"}}).status, 400);
  EXPECT_EQ(call("lamp", "lamp on 3")["model"], "lamp");
}

TEST_F(Serve, ContentsAreStoredWhereAskedForAndNowhereElse) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  ASSERT_EQ(test::thimble("tune " + job()).status, 0);
  const fs::path file = folder_ / "contents.db";
  const auto files = [&] {
    std::set<std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(folder_))
      if (entry.path().filename() != "serve.log") out.insert(entry.path().string());
    return out;
  };
  const std::set<std::string> before = files();
  serve();
  call("lamp", "lamp on 1");
  EXPECT_EQ(end(), 0);
  EXPECT_EQ(files(), before);

  serve({"--offline", "--log-contents", file.string(), "--keep-contents", "30"});
  const Json called = call("lamp", "lamp on 2", "required");
  const Json said = call("lamp", "hello", "none");
  const Json messages = Json::array({{{"role", "user"}, {"content", "lamp off 3"}}});
  const HttpAnswer streamed = ask("POST", "/v1/chat/completions",
                                  {{"model", "lamp"}, {"messages", messages}, {"tool_choice", "none"},
                                   {"max_tokens", 20}, {"stream", true},
                                   {"stream_options", {{"include_usage", true}}}});
  EXPECT_EQ(end(), 0);

  std::string text, id;
  Json usage;
  for (size_t at = 0; (at = streamed.body.find("data: {", at)) != streamed.body.npos; ++at) {
    const Json event = Json::parse(streamed.body.substr(at + 6, streamed.body.find('\n', at) - at - 6));
    id = event["id"];
    if (event["choices"].empty()) usage = event["usage"];
    else text += event["choices"][0]["delta"].value("content", "");
  }
  const Json log = test::rows_of(file, "SELECT * FROM log ORDER BY number");
  ASSERT_EQ(log.size(), 3u);
  for (const Json& row : log) {
    EXPECT_EQ(row["model_asked"], "lamp");
    EXPECT_EQ(row["model"], "lamp");
    EXPECT_EQ(row["adapter"], (run() / "adapter").string());
    EXPECT_NE(row["base"], "lamp");
    EXPECT_EQ(row["status"], "200");
  }
  const auto calls = Json::parse(log[0]["tool_calls"].get<std::string>());
  EXPECT_EQ(log[0]["id"], called["id"]);
  EXPECT_EQ(calls, called["choices"][0]["message"]["tool_calls"]);
  EXPECT_EQ(log[0]["finish"], "tool_calls");
  EXPECT_EQ(log[1]["id"], said["id"]);
  EXPECT_EQ(log[1]["text"], said["choices"][0]["message"]["content"]);
  EXPECT_EQ(log[1]["finish"], said["choices"][0]["finish_reason"]);
  EXPECT_EQ(log[1]["completion_tokens"], said["usage"]["completion_tokens"]);
  EXPECT_EQ(log[2]["id"], id);
  EXPECT_EQ(Json::parse(log[2]["messages"].get<std::string>()), messages);
  EXPECT_EQ(log[2]["text"], text);
  EXPECT_NE(text, "");
  EXPECT_EQ(log[2]["prompt_tokens"], usage["prompt_tokens"]);
  EXPECT_EQ(log[2]["completion_tokens"], usage["completion_tokens"]);
  EXPECT_FALSE(fs::exists(folder_ / "contents.db-wal"));  // ended in order
}

TEST_F(Serve, WhatCannotBeServedIsSaid) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  const auto refused = [](const std::string& arguments) {
    const test::Result result = test::thimble("serve " + arguments);
    EXPECT_EQ(result.status, 2) << result.err;
    return result.err;
  };
  EXPECT_THAT(refused(job()), HasSubstr("no finished run"));
  EXPECT_THAT(refused("/nowhere/model.gguf"), HasSubstr("/nowhere/model.gguf"));
  EXPECT_THAT(refused(job() + " --tls-cert a.pem"), HasSubstr("--tls-key"));
  EXPECT_THAT(refused(test::stories_model().string() + " -a nonsense"), HasSubstr("NAME=FOLDER"));
  EXPECT_THAT(refused(test::stories_model().string() + " --memory 1 --port 0"), HasSubstr("--memory"));
  EXPECT_THAT(refused(test::stories_model().string() + " --keep-contents 3"), HasSubstr("--log-contents"));
  EXPECT_THAT(refused(test::stories_model().string() + " --port 0 --log-contents /nowhere/contents.db"),
              HasSubstr("/nowhere/contents.db"));
  EXPECT_THAT(refused(test::stories_model().string() + " --port 0 --log-contents '" +
                      (folder_ / "train.jsonl").string() + "'"),
              HasSubstr("is no contents log of Thimble"));
}

}  // namespace
}  // namespace thimble
