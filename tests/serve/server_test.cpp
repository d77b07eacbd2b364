#include "serve/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "serve/http_client.h"
#include "stories.h"

namespace thimble {
namespace {

using testing::HasSubstr;

const Json kTools = parse_json(R"([{"type": "function", "function": {"name": "paint", "parameters": {"type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "coats": {"type": "integer", "minimum": 1, "maximum": 3}},
    "required": ["colour", "coats"]}}}])", "tools");

// A server of the 260 K-parameter model on a thread of its own.
class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    THIMBLE_REQUIRE_STORIES();
    start({});
  }
  void TearDown() override {
    if (server_) server_->stop();
  }

  // A folder of the same model that was taught kTools, which are not in its prompts: those would not fit its context.
  static std::filesystem::path taught_model() {
    namespace fs = std::filesystem;
    const fs::path folder = fs::temp_directory_path() / ("thimble-taught-" + std::to_string(::getpid()));
    fs::create_directories(folder);
    for (const auto& file : fs::directory_iterator(test::stories_model())) {
      std::error_code there_already;
      fs::create_symlink(file.path(), folder / file.path().filename(), there_already);
    }
    JobManifest manifest;
    manifest.job = "painting";
    manifest.base = "stories";
    manifest.tools_in_prompt = false;
    manifest.tools = tools_from_json(kTools, "tools");
    std::ofstream(folder / "thimble_job.json") << manifest_to_text(manifest);
    return folder;
  }

  void start(ServerOptions options) {
    options.http.port = 0;
    if (options.models.empty()) options.models.push_back(test::stories_model().string());
    model_ = std::filesystem::path(options.models.front()).filename().string();
    options.shelf.engine.cache_tokens = 2048;
    server_ = std::make_unique<Server>(std::move(options), [this](const std::string& line) {
      const std::scoped_lock lock(telling_);
      told_ += line + "\n";
    });
    thread_ = std::jthread([this] { server_->run(); });
  }

  HttpAnswer ask(const std::string& path, const std::string& body, const std::string& method = "POST") const {
    Client client = Client::tcp(server_->port());
    client.send(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    return client.answer();
  }
  Json json(const std::string& path, const Json& body, int status = 200) const {
    const HttpAnswer answer = ask(path, body.dump());
    EXPECT_EQ(answer.status, status) << answer.body;
    return parse_json(answer.body, "answer");
  }
  // The data of a stream's events; the last one, [DONE], is checked and left out.
  std::vector<Json> events(const std::string& path, Json body) const {
    body["stream"] = true;
    const HttpAnswer answer = ask(path, body.dump());
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_THAT(answer.header("content-type"), testing::StartsWith("text/event-stream"));
    std::vector<Json> out;
    std::string_view rest = answer.body;
    bool done = false;
    while (!rest.empty()) {
      const size_t end = rest.find("\n\n");
      EXPECT_TRUE(rest.starts_with("data: ")) << rest;
      const std::string_view data = rest.substr(6, end - 6);
      done = data == "[DONE]";
      if (!done) out.push_back(parse_json(data, "event"));
      rest.remove_prefix(end + 2);
    }
    EXPECT_TRUE(done);
    return out;
  }
  static Json chat(const std::string& text) {
    return {{"messages", Json::array({{{"role", "user"}, {"content", text}}})}, {"max_tokens", 24}, {"temperature", 0}};
  }

  std::string model_, told_;
  std::mutex telling_;
  std::unique_ptr<Server> server_;
  std::jthread thread_;
};

TEST_F(ServerTest, AnswersTheSameStreamedAndWhole) {
  Json body = chat("Once");
  body["logprobs"] = true;
  body["top_logprobs"] = 2;
  const Json whole = json("/v1/chat/completions", body);
  const Json& choice = whole["choices"][0];
  EXPECT_EQ(whole["object"], "chat.completion");
  EXPECT_EQ(whole["model"], model_);
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(whole["usage"]["completion_tokens"], 24);
  EXPECT_EQ(choice["logprobs"]["content"].size(), 24u);
  EXPECT_EQ(choice["logprobs"]["content"][0]["top_logprobs"].size(), 2u);

  body["stream_options"] = {{"include_usage", true}};
  std::string text;
  Json logprobs = Json::array();
  const auto streamed = events("/v1/chat/completions", body);
  for (const Json& event : streamed) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    if (event["choices"].empty()) continue;
    EXPECT_TRUE(event.contains("usage") && event["usage"].is_null());
    const Json& part = event["choices"][0];
    if (part["delta"].contains("content")) text += part["delta"]["content"].get<std::string>();
    if (!part["logprobs"].is_null())
      for (const Json& token : part["logprobs"]["content"]) logprobs.push_back(token);
  }
  EXPECT_EQ(text, choice["message"]["content"]);
  EXPECT_EQ(logprobs, choice["logprobs"]["content"]);
  EXPECT_EQ(streamed.back()["usage"]["completion_tokens"], 24);
  EXPECT_EQ(streamed.front()["choices"][0]["delta"]["role"], "assistant");
}

TEST_F(ServerTest, ToolChoiceIsHeldTo) {
  server_->stop();
  thread_.join();
  ServerOptions options;
  options.models.push_back(taught_model().string());
  start(std::move(options));
  Json body = chat("Paint the wall.");
  body["max_tokens"] = 200;
  body["temperature"] = 1;
  body["parallel_tool_calls"] = false;
  for (const Json& choice : {Json("required"), Json{{"type", "function"}, {"function", {{"name", "paint"}}}}}) {
    body["tool_choice"] = choice;
    for (int seed = 0; seed < 5; ++seed) {
      body["seed"] = seed;
      const Json answer = json("/v1/chat/completions", body)["choices"][0];
      EXPECT_EQ(answer["finish_reason"], "tool_calls");
      EXPECT_TRUE(answer["message"]["content"].is_null());
      ASSERT_EQ(answer["message"]["tool_calls"].size(), 1u);
      const Json& function = answer["message"]["tool_calls"][0]["function"];
      EXPECT_EQ(function["name"], "paint");
      const Json arguments = parse_json(function["arguments"].get<std::string>(), "arguments");
      EXPECT_THAT(arguments["colour"].get<std::string>(), testing::AnyOf("red", "blue"));
      std::string streamed;
      for (const Json& event : events("/v1/chat/completions", body))
        if (event["choices"][0]["delta"].contains("tool_calls"))
          streamed += event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].get<std::string>();
      EXPECT_EQ(streamed, function["arguments"]);
    }
  }
  body["tool_choice"] = "none";
  EXPECT_FALSE(json("/v1/chat/completions", body)["choices"][0]["message"].contains("tool_calls"));
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "dig"}}}};
  EXPECT_THAT(json("/v1/chat/completions", body, 400)["error"]["message"].get<std::string>(), HasSubstr("dig"));
}

TEST_F(ServerTest, AnswersAreValuesOfTheSchema) {
  Json body = chat("A colour.");
  body["max_tokens"] = 200;
  body["response_format"] = {{"type", "json_schema"},
                             {"json_schema", {{"name", "c"}, {"schema", kTools[0]["function"]["parameters"]}}}};
  const Json answer = json("/v1/chat/completions", body)["choices"][0];
  EXPECT_EQ(answer["finish_reason"], "stop");
  EXPECT_TRUE(parse_json(answer["message"]["content"].get<std::string>(), "content").contains("coats"));
  body["response_format"]["json_schema"]["schema"]["properties"]["coats"]["contains"] = 3;
  const Json refused = json("/v1/chat/completions", body, 400)["error"];
  EXPECT_EQ(refused["param"], "response_format");
  EXPECT_THAT(refused["message"].get<std::string>(), HasSubstr("contains"));
}

TEST_F(ServerTest, CompletesTextsAndLists) {
  const Json one = json("/v1/completions", {{"prompt", "Once upon"}, {"max_tokens", 5}, {"temperature", 0}});
  const Json two = json("/v1/completions", {{"prompt", {"Once upon", "The"}}, {"max_tokens", 5}, {"temperature", 0},
                                            {"n", 2}, {"echo", true}, {"logprobs", nullptr}});
  ASSERT_EQ(two["choices"].size(), 4u);
  EXPECT_EQ(two["choices"][1]["text"], "Once upon" + one["choices"][0]["text"].get<std::string>());
  EXPECT_THAT(two["choices"][2]["text"].get<std::string>(), testing::StartsWith("The"));
  EXPECT_EQ(two["usage"]["completion_tokens"], 20);
  EXPECT_THAT(json("/v1/completions", {{"prompt", "a"}, {"suffix", "b"}}, 400)["error"]["message"].get<std::string>(),
              HasSubstr("suffix"));
  EXPECT_EQ(json("/v1/completions", {{"prompt", {99999}}}, 400)["error"]["param"], "prompt");
}

TEST_F(ServerTest, TokensGoThereAndBack) {
  const Json tokens = json("/tokenize", {{"content", "Once upon a time"}});
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_THAT(json("/detokenize", {{"tokens", tokens["tokens"]}})["content"].get<std::string>(),
              HasSubstr("Once upon a time"));
  EXPECT_THAT(json("/apply-template", chat("Hello"))["prompt"].get<std::string>(), HasSubstr("Hello"));
}

TEST_F(ServerTest, RefusesWithOpenAisErrors) {
  Json body = chat("hi");
  body["model"] = "gpt-4o";
  const Json unknown = json("/v1/chat/completions", body, 404)["error"];
  EXPECT_EQ(unknown["code"], "model_not_found");
  EXPECT_THAT(unknown["message"].get<std::string>(), HasSubstr(model_));
  body = chat("hi");
  body["max_tokens"] = 100000;
  const Json long_one = json("/v1/chat/completions", body, 400)["error"];
  EXPECT_EQ(long_one["code"], "context_length_exceeded");
  EXPECT_THAT(long_one["message"].get<std::string>(), HasSubstr("maximum context length is"));
  EXPECT_EQ(ask("/v1/chat/completions", "{").status, 400);
  EXPECT_EQ(ask("/v1/chat/completions", "", "GET").status, 405);
  EXPECT_EQ(ask("/v1/nothing", "").status, 404);
  EXPECT_EQ(ask("/health", "", "GET").status, 200);
}

TEST_F(ServerTest, ListsItsModels) {
  const Json list = parse_json(ask("/v1/models", "", "GET").body, "models");
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], model_);
  EXPECT_EQ(ask("/v1/models/" + model_, "", "GET").status, 200);
  EXPECT_EQ(ask("/v1/models/other", "", "GET").status, 404);
}

TEST_F(ServerTest, ManyAtOnceGetTheAnswersThatTheyGetAlone) {
  std::vector<std::string> alone;
  const auto body = [](int i) {
    Json b = chat("Tell me of number " + std::to_string(i % 7));
    b["temperature"] = 1;
    b["seed"] = i % 7;
    return b;
  };
  for (int i = 0; i < 7; ++i) alone.push_back(json("/v1/chat/completions", body(i))["choices"][0]["message"]["content"]);
  std::vector<std::jthread> clients;
  std::atomic<int> right{0};
  for (int c = 0; c < 12; ++c)
    clients.emplace_back([&, c] {
      for (int i = c; i < c + 6; ++i)
        right += json("/v1/chat/completions", body(i))["choices"][0]["message"]["content"] ==
                 alone[static_cast<size_t>(i % 7)];
    });
  clients.clear();
  EXPECT_EQ(right, 72);
}

TEST_F(ServerTest, AClientThatLeavesEndsItsAnswer) {
  Json body = chat("A long story");
  body["max_tokens"] = 400;
  body["ignore_eos"] = true;
  body["stream"] = true;
  const std::string text = body.dump();
  for (int i = 0; i < 10; ++i) {
    Client client = Client::tcp(server_->port());
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                std::to_string(text.size()) + "\r\n\r\n" + text);
    client.more();
    client.reset();
  }
  for (int i = 0; i < 200 && server_->open_answers() > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(server_->open_answers(), 0);
}

TEST_F(ServerTest, TooManyAreRefusedAndTold) {
  server_->stop();
  thread_.join();
  ServerOptions options;
  options.most_open = 1;
  start(std::move(options));
  Json body = chat("hi");
  body["n"] = 2;
  const HttpAnswer answer = ask("/v1/chat/completions", body.dump());
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.header("retry-after"), "5");
}

TEST_F(ServerTest, RequestsAreLoggedWithoutTheirContents) {
  ask("/v1/chat/completions", chat("a secret").dump());
  ask("/v1/nothing", "", "GET");
  ask("/health", "", "GET");
  server_->stop();
  thread_.join();
  server_.reset();
  EXPECT_THAT(told_, HasSubstr(" 200 POST /v1/chat/completions  "));
  EXPECT_THAT(told_, HasSubstr("  " + model_ + ", "));
  EXPECT_THAT(told_, HasSubstr(" + 24 tokens"));
  EXPECT_THAT(told_, HasSubstr(" 404 GET /v1/nothing"));
  EXPECT_THAT(told_, testing::Not(HasSubstr("secret")));
  EXPECT_THAT(told_, testing::Not(HasSubstr("/health")));
}

TEST_F(ServerTest, TheTimeLimitEndsAnswers) {
  server_->stop();
  thread_.join();
  ServerOptions options;
  options.limits.most_s = 0.005;
  start(std::move(options));
  Json body = chat("A story");
  body["max_tokens"] = 450;
  body["ignore_eos"] = true;
  EXPECT_EQ(json("/v1/chat/completions", body, 408)["error"]["code"], "timeout");
  EXPECT_EQ(server_->open_answers(), 0);
}

TEST_F(ServerTest, DrainingFinishesWhatRuns) {
  Json body = chat("A story");
  body["max_tokens"] = 200;
  body["ignore_eos"] = true;
  body["stream"] = true;
  const std::string text = body.dump();
  Client client = Client::tcp(server_->port());
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
              std::to_string(text.size()) + "\r\n\r\n" + text);
  client.more();
  server_->drain();
  const HttpAnswer answer = client.answer();
  EXPECT_THAT(answer.body, testing::EndsWith("data: [DONE]\n\n"));
  thread_.join();  // and the server ends
}

}  // namespace
}  // namespace thimble
