#include "route/remote_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "core/error.h"
#include "formats/loopback_server.h"

namespace thimble {
namespace {

using test::http_answer;
using test::HttpRequest;
using test::LoopbackServer;
using testing::HasSubstr;

std::vector<Tool> tools() { return parse_tools(R"([{"name": "lamp", "parameters": {"type": "object"}}])", "tools"); }

RemoteModel remote(const LoopbackServer& server, const std::string& path = "") {
  RemoteModel model;
  model.url = server.url(path);
  model.model = "large";
  model.timeout_s = 5;
  return model;
}

std::vector<Turn> conversation() {
  std::vector<Turn> turns;
  turns.push_back({.role = "user", .content = "lamp on"});
  turns.push_back({.role = "assistant", .content = "", .calls = {{"lamp", Json{{"on", true}}}}});
  turns.push_back({.role = "tool", .content = "done", .name = "lamp", .call_id = "call_0"});
  turns.push_back({.role = "user", .content = "and off"});
  return turns;
}

// What ask() says against an endpoint that answers with these bytes.
std::string error(const std::string& answer) {
  const LoopbackServer server([&](const HttpRequest&) { return answer; });
  try {
    ask(remote(server), "", conversation(), tools(), 8);
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing";
}

constexpr const char* kAnswer = R"({"id": "x", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
  "role": "assistant", "content": null, "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "lamp", "arguments": "{\"on\": false}"}},
    {"id": "c2", "type": "function", "function": {"name": "lamp", "arguments": "{broken"}}]}}],
  "usage": {"prompt_tokens": 1000, "completion_tokens": 500}})";

TEST(RemoteModel, IsAskedInOpenAisFormAndItsCallsAreRead) {
  const LoopbackServer server([](const HttpRequest&) { return http_answer("200 OK", kAnswer); });
  for (const char* path : {"", "/", "/v1", "/v1/"}) {
    RemoteModel model = remote(server, path);
    model.input_price = 2;
    model.output_price = 8;
    const RemoteAnswer answer = ask(model, "Be brief.", conversation(), tools(), 64);
    ASSERT_EQ(answer.calls.size(), 1u);
    EXPECT_EQ(answer.calls[0].name, "lamp");
    EXPECT_EQ(answer.calls[0].arguments, (Json{{"on", false}}));
    EXPECT_EQ(answer.problems.size(), 1u);
    EXPECT_EQ(answer.input_tokens, 1000);
    EXPECT_EQ(answer.output_tokens, 500);
    EXPECT_DOUBLE_EQ(answer.cost, 0.006);
    EXPECT_GT(answer.seconds, 0);
  }
  for (const HttpRequest& request : server.requests()) EXPECT_EQ(request.path, "/v1/chat/completions");
  const HttpRequest request = server.requests().front();
  EXPECT_EQ(request.headers.count("authorization"), 0u);
  const Json body = parse_json(request.body, "request");
  EXPECT_EQ(body["model"], "large");
  EXPECT_EQ(body["temperature"], 0);
  EXPECT_EQ(body["max_tokens"], 64);
  EXPECT_EQ(body["tools"][0]["function"]["name"], "lamp");
  ASSERT_EQ(body["messages"].size(), 5u);
  EXPECT_EQ(body["messages"][0]["content"], "Be brief.");
  EXPECT_EQ(body["messages"][2]["tool_calls"][0]["id"], body["messages"][3]["tool_call_id"]);
  EXPECT_EQ(body["messages"][2]["tool_calls"][0]["function"]["arguments"], "{\"on\": true}");
}

TEST(RemoteModel, SendsTheKeyOfTheNamedVariableOrRefuses) {
  const LoopbackServer server([](const HttpRequest&) { return http_answer("200 OK", kAnswer); });
  RemoteModel model = remote(server);
  model.api_key_env = "THIMBLE_TEST_KEY";
  ::unsetenv("THIMBLE_TEST_KEY");
  EXPECT_THROW(ask(model, "", conversation(), {}, 8), Error);
  EXPECT_TRUE(server.requests().empty());
  ::setenv("THIMBLE_TEST_KEY", "secret", 1);
  ask(model, "", conversation(), {}, 8);
  ::unsetenv("THIMBLE_TEST_KEY");
  EXPECT_EQ(server.requests().at(0).headers.at("authorization"), "Bearer secret");
  EXPECT_FALSE(parse_json(server.requests().at(0).body, "request").contains("tools"));
}

TEST(RemoteModel, SaysWhatIsWrongWithAnAnswer) {
  EXPECT_THAT(error(http_answer("401 Unauthorized", R"({"error": {"message": "bad key"}})")),
              HasSubstr("401: bad key"));
  EXPECT_THAT(error(http_answer("500 Oops", "<html>")), HasSubstr("500: <html>"));
  EXPECT_THAT(error(http_answer("200 OK", "<html>")), HasSubstr("not JSON"));
  for (const char* body : {"{}", "[]", "3", R"({"choices": []})", R"({"choices": [{"message": 3}]})",
                           R"({"choices": [{"message": {"tool_calls": [{}]}}]})"})
    EXPECT_THAT(error(http_answer("200 OK", body)), HasSubstr("not a chat completion")) << body;
  EXPECT_THAT(error("no HTTP at all"), HasSubstr("check large.url"));
}

TEST(RemoteModel, SaysWhereNobodyAnswered) {
  std::string url;
  {
    const LoopbackServer gone([](const HttpRequest&) { return ""; });
    url = gone.url("");
  }
  RemoteModel model;
  model.url = url;
  try {
    ask(model, "", conversation(), {}, 8);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(url));
    EXPECT_THAT(e.what(), HasSubstr("large.url"));
  }
}

}  // namespace
}  // namespace thimble
