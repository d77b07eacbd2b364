#include "serve/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "serve/contents_rows.h"
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

// Stops the running server, starts one that stores contents, and reads what it stored once it has ended.
class ContentsServerTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    file_ = std::filesystem::temp_directory_path() / ("thimble-contents-" + std::to_string(::getpid()) + ".db");
    std::filesystem::remove(file_);
    restart({});
  }
  void TearDown() override {
    ServerTest::TearDown();
    std::filesystem::remove(file_);
  }
  void restart(ServerOptions options) {
    end();
    options.contents.file = file_;
    options.models.push_back(taught_model().string());
    start(std::move(options));
  }
  void end() {
    server_->stop();
    thread_.join();
    server_.reset();
  }
  Json rows(const std::string& sql = "SELECT * FROM log ORDER BY number, choice") const {
    return test::rows_of(file_, sql);
  }

  std::filesystem::path file_;
};

TEST_F(ContentsServerTest, EveryApiAndEveryChoiceIsStored) {
  EXPECT_THAT(told_, HasSubstr("contents are stored: all that is asked and answered goes into " + file_.string()));
  Json chat_body = chat("Paint the wall.");
  chat_body.update({{"n", 2}, {"temperature", 1}, {"seed", 5}, {"max_tokens", 60}, {"tool_choice", "required"},
                    {"tools", kTools}});
  const HttpAnswer chat_answer = ask("/v1/chat/completions", chat_body.dump());
  const Json chat_json = parse_json(chat_answer.body, "chat");
  const Json texts = json("/v1/completions", {{"prompt", {"Once upon", "The"}}, {"max_tokens", 5}, {"n", 2}});
  const Json response = json("/v1/responses", {{"model", model_}, {"input", "Hello"}, {"instructions", "Be brief."},
                                               {"tool_choice", "none"}, {"text", {{"format", {{"type", "text"}}}}},
                                               {"max_output_tokens", 8}});
  const Json message = json("/v1/messages", {{"model", model_}, {"max_tokens", 8}, {"system", "Be brief."},
                                             {"tool_choice", {{"type", "none"}}},
                                             {"messages", {{{"role", "user"}, {"content", "Hello"}}}}});
  EXPECT_EQ(ask("/v1/chat/completions", "{}").status, 400);  // no answer, no row
  json("/tokenize", {{"content", "Once"}});
  std::string metrics;
  for (int i = 0; i < 500 && metrics.find("stored_total 4\n") == metrics.npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    metrics = ask("/metrics", "", "GET").body;
  }
  EXPECT_THAT(metrics, HasSubstr("\nthimble_contents_stored_total 4\n"));
  EXPECT_THAT(metrics, HasSubstr("\nthimble_contents_lost_total 0\n"));
  end();

  const Json log = rows();
  ASSERT_EQ(log.size(), 2u + 4 + 1 + 1);
  for (size_t i = 0; i < 2; ++i) {
    const Json& row = log[i];
    const Json& choice = chat_json["choices"][i];
    EXPECT_EQ(row["id"], chat_json["id"]);
    EXPECT_EQ(row["http_id"], chat_answer.header("x-request-id"));
    EXPECT_EQ(row["path"], "/v1/chat/completions");
    EXPECT_TRUE(row["model_asked"].is_null());
    EXPECT_EQ(row["model"], model_);
    EXPECT_EQ(row["base"], model_);
    EXPECT_EQ(row["messages"], chat_body["messages"].dump());
    EXPECT_EQ(row["tools"], kTools.dump());
    EXPECT_EQ(row["parameters"],
              R"({"max_tokens":60,"temperature":1,"n":2,"seed":5,"tool_choice":"required"})");
    EXPECT_EQ(row["choice"], i);
    EXPECT_EQ(row["tool_calls"], choice["message"]["tool_calls"].dump());
    EXPECT_EQ(row["finish"], choice["finish_reason"]);
    EXPECT_EQ(row["text"], "");
    EXPECT_EQ(row["status"], "200");
    EXPECT_EQ(row["prompt_tokens"], chat_json["usage"]["prompt_tokens"]);
    EXPECT_EQ(row["cached_tokens"], chat_json["usage"]["prompt_tokens_details"]["cached_tokens"]);
    EXPECT_EQ(row["completion_tokens"], chat_json["usage"]["completion_tokens"]);
    EXPECT_GT(row["first_token_ms"], 0);
    EXPECT_GE(row["answer_ms"], row["first_token_ms"]);
    EXPECT_GE(row["total_ms"], row["answer_ms"]);
    EXPECT_LT(std::abs(row["time_ms"].get<int64_t>() - unix_time_ms()), 600'000);
  }
  EXPECT_EQ(log[0]["tokens"].get<int>() + log[1]["tokens"].get<int>(), log[0]["completion_tokens"]);
  for (size_t i = 0; i < 4; ++i) {
    const Json& row = log[2 + i];
    EXPECT_EQ(row["id"], texts["id"]);
    EXPECT_EQ(row["prompt"], R"(["Once upon","The"])");
    EXPECT_TRUE(row["messages"].is_null());
    EXPECT_EQ(row["text"], texts["choices"][i]["text"]);
    EXPECT_EQ(row["prompt_tokens"], texts["usage"]["prompt_tokens"]);
    EXPECT_EQ(row["completion_tokens"], 20);
  }
  EXPECT_EQ(log[6]["id"], response["id"]);
  EXPECT_EQ(log[6]["model_asked"], model_);
  EXPECT_EQ(log[6]["messages"], R"("Hello")");
  EXPECT_EQ(log[6]["system"], R"("Be brief.")");
  EXPECT_EQ(log[6]["response_format"], R"({"format":{"type":"text"}})");
  EXPECT_EQ(log[6]["text"], response["output"][0]["content"][0]["text"]);
  EXPECT_EQ(log[6]["finish"], "length");
  EXPECT_EQ(log[7]["id"], message["id"]);
  EXPECT_EQ(log[7]["system"], R"("Be brief.")");
  EXPECT_EQ(log[7]["text"], message["content"][0]["text"]);
  EXPECT_EQ(log[7]["completion_tokens"], message["usage"]["output_tokens"]);
}

TEST_F(ContentsServerTest, CallsCarryTheIdsThatClientsWereGiven) {
  const Json body = {{"model", model_}, {"max_tokens", 60}, {"tool_choice", {{"type", "any"}}},
                     {"messages", {{{"role", "user"}, {"content", "Paint."}}}}};
  const Json message = json("/v1/messages", body);
  const Json response = json("/v1/responses", {{"input", "Paint."}, {"tool_choice", "required"}});
  end();
  const Json log = rows("SELECT tool_calls ->> '$[0].id' AS id, tool_calls ->> '$[0].function.name' AS name "
                        "FROM log ORDER BY number");
  const auto of_type = [](const Json& list, const char* type) {
    return *std::find_if(list.begin(), list.end(), [&](const Json& one) { return one["type"] == type; });
  };
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0], Json({{"id", of_type(message["content"], "tool_use")["id"]}, {"name", "paint"}}));
  EXPECT_EQ(log[1]["id"], of_type(response["output"], "function_call")["call_id"]);
}

TEST_F(ContentsServerTest, WhatWasCutOffIsStoredAsThat) {
  Json body = chat("A story");
  body.update({{"max_tokens", 450}, {"ignore_eos", true}, {"stream", true}, {"tool_choice", "none"}});
  const std::string text = body.dump();
  const auto send = [&] {
    Client client = Client::tcp(server_->port());
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                std::to_string(text.size()) + "\r\n\r\n" + text);
    client.more();
    return client;
  };
  send().reset();
  for (int i = 0; i < 500 && server_->open_answers() > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  {
    const Client client = send();
    end();  // in the middle of it
  }
  ServerOptions options;
  options.limits.most_s = 0.005;
  start({});  // ends in restart()
  restart(std::move(options));
  json("/v1/chat/completions", [&] { return body["stream"] = false, body; }(), 408);
  end();

  const Json log = rows();
  ASSERT_EQ(log.size(), 3u);
  EXPECT_EQ(log[0]["status"], "cancelled");
  EXPECT_EQ(log[0]["finish"], "cancelled");
  EXPECT_NE(log[0]["text"], "");
  EXPECT_LT(log[0]["tokens"], 450);
  EXPECT_EQ(log[1]["status"], "cancelled");
  EXPECT_EQ(log[2]["status"], "408");
  EXPECT_THAT(log[2]["error"].get<std::string>(), HasSubstr("the server's limit"));
  EXPECT_TRUE(log[2]["finish"].is_null());
  EXPECT_TRUE(log[2]["answer_ms"].is_null());
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

// Streams of every API that wait behind long answers, each as it came over the wire.
class WaitingStreams : public ServerTest {
 protected:
  std::vector<std::string> answers(double most_s, int tokens) {
    server_->stop();
    thread_.join();
    ServerOptions options;
    options.shelf.engine.max_batch = 1;
    options.http.limits.quiet_time = std::chrono::milliseconds(5);
    options.limits.most_s = most_s;
    start(std::move(options));
    Json before = chat("A story");
    before["max_tokens"] = 450;
    before["ignore_eos"] = true;
    before["n"] = 16;
    Client first = asked("/v1/chat/completions", before);
    while (server_->open_answers() < 16) std::this_thread::yield();
    const Json turns = Json::array({{{"role", "user"}, {"content", "hi"}}});
    std::vector<Client> clients;
    clients.push_back(asked("/v1/chat/completions", {{"messages", turns}, {"max_tokens", tokens}, {"stream", true}}));
    clients.push_back(asked("/v1/completions", {{"prompt", "hi"}, {"max_tokens", tokens}, {"stream", true}}));
    clients.push_back(asked("/v1/responses", {{"input", "hi"}, {"max_output_tokens", tokens}, {"stream", true}}));
    clients.push_back(asked("/v1/messages",
                            {{"model", model_}, {"messages", turns}, {"max_tokens", tokens}, {"stream", true}}));
    std::vector<std::string> out;
    for (Client& client : clients) {
      const HttpAnswer answer = client.answer();
      EXPECT_EQ(answer.status, 200) << answer.body;
      EXPECT_TRUE(answer.whole);
      out.push_back(answer.body);
    }
    return out;
  }

 private:
  Client asked(const std::string& path, const Json& body) const {
    const std::string text = body.dump();
    Client client = Client::tcp(server_->port());
    client.send("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(text.size()) +
                "\r\n\r\n" + text);
    return client;
  }
};

TEST_F(WaitingStreams, ShowThatTheyLiveBeforeTheirFirstToken) {
  const auto all = answers(0, 16);
  for (size_t i = 0; i < 3; ++i) EXPECT_THAT(all[i], testing::StartsWith(": ping\n\n: ping\n\n"));
  EXPECT_THAT(all[0], testing::EndsWith("data: [DONE]\n\n"));
  EXPECT_THAT(all[1], testing::EndsWith("data: [DONE]\n\n"));
  EXPECT_THAT(all[2], HasSubstr("event: response.created\n"));
  EXPECT_THAT(all[2], HasSubstr("event: response.incomplete\n"));
  EXPECT_THAT(all[3], testing::StartsWith("event: ping\ndata: {\"type\":\"ping\"}\n\n"));
  EXPECT_THAT(all[3], HasSubstr("event: message_start\n"));
  EXPECT_THAT(all[3], HasSubstr("event: message_stop\n"));
}

TEST_F(WaitingStreams, AreToldOfAnErrorOnceTheyHaveBegun) {
  const auto all = answers(0.05, 400);
  EXPECT_THAT(all[0], HasSubstr("data: {\"error\":{\"message\":\"the answer was not done within"));
  EXPECT_THAT(all[1], HasSubstr("data: {\"error\":{\"message\":\"the answer was not done within"));
  EXPECT_THAT(all[2], HasSubstr("event: response.created\n"));
  EXPECT_THAT(all[2], HasSubstr("event: response.failed\n"));
  EXPECT_THAT(all[3], HasSubstr("event: error\n"));
}

// A server that is told to end while one client's long answers run.
class EndingServer : public ServerTest {
 protected:
  Client end(double drain_wait_s) {
    server_->stop();
    thread_.join();
    ServerOptions options;
    options.shelf.engine.max_batch = 1;
    options.drain_wait_s = drain_wait_s;
    start(std::move(options));
    EXPECT_EQ(ask("/ready", "", "GET").status, 200);
    Json body = chat("A story");
    body["max_tokens"] = 450;
    body["ignore_eos"] = true;
    body["n"] = 16;
    body["stream"] = true;
    const std::string text = body.dump();
    Client client = Client::tcp(server_->port());
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                std::to_string(text.size()) + "\r\n\r\n" + text);
    client.more();
    server_->drain();
    return client;
  }
};

TEST_F(EndingServer, IsAliveButNotReadyAndStillAnswers) {
  Client client = end(20);
  const HttpAnswer ready = ask("/ready", "", "GET");
  EXPECT_EQ(ready.status, 503);
  EXPECT_THAT(ready.body, HasSubstr("draining"));
  EXPECT_EQ(ready.header("connection"), "close");
  EXPECT_EQ(ask("/health", "", "GET").status, 200);
  EXPECT_EQ(ask("/v1/models", "", "GET").status, 200);
  EXPECT_THAT(client.answer().body, testing::EndsWith("data: [DONE]\n\n"));
  const auto from = std::chrono::steady_clock::now();
  thread_.join();  // nothing is open: it does not wait on
  EXPECT_LT(std::chrono::steady_clock::now() - from, std::chrono::seconds(10));
}

TEST_F(EndingServer, TakesNothingNewOnceTheWaitIsOver) {
  Client client = end(0);
  bool refused = false;
  for (int i = 0; i < 100 && !refused; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    try {
      Client::tcp(server_->port());
    } catch (const std::runtime_error&) {
      refused = true;
    }
  }
  EXPECT_TRUE(refused);
  EXPECT_THAT(client.answer().body, testing::EndsWith("data: [DONE]\n\n"));
  thread_.join();
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
