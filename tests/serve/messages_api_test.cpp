#include "serve/messages_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/fields.h"
#include "serve/messages_api_fields.h"

namespace thimble {
namespace {

using testing::HasSubstr;

MessagesRequest read(const std::string& text, bool counting = false) {
  return read_messages_request(parse_body(text), counting);
}

// The message of the 400 that a body gets; empty where it is read.
std::string refusal(const std::string& text) {
  try {
    read(text);
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    return e.what();
  }
  return "";
}

TEST(MessagesApi, ReadsAConversationWithCalls) {
  const auto request = read(R"({"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "be "},
      {"type": "text", "text": "brief", "cache_control": {"type": "ephemeral"}}], "messages": [
      {"role": "user", "content": "reset"},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
         {"type": "text", "text": "I do."},
         {"type": "tool_use", "id": "t1", "name": "reset", "input": {"user": "a"}}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": "no"},
         {"type": "text", "text": "and"}, {"type": "text", "text": " now?"}]}],
      "tools": [{"name": "reset", "input_schema": {"type": "object"}}],
      "tool_choice": {"type": "tool", "name": "reset", "disable_parallel_tool_use": true},
      "stop_sequences": ["a"], "top_k": 3, "seed": 5, "thinking": {"type": "enabled", "budget_tokens": 1024},
      "metadata": {"user_id": "x"}})");
  const GenerationRequest& out = request.generation;
  ASSERT_EQ(out.turns.size(), 5u);
  EXPECT_EQ(out.turns[0].content, "be brief");
  EXPECT_EQ(out.turns[2].content, "I do.");
  EXPECT_EQ(out.turns[2].calls, (std::vector<Call>{{"reset", Json{{"user", "a"}}}}));
  EXPECT_EQ(out.turns[3].role, "tool");
  EXPECT_EQ(out.turns[3].name, "reset");
  EXPECT_EQ(out.turns[3].content, "Error: no");
  EXPECT_EQ(out.turns[4].content, "and now?");
  EXPECT_EQ(out.calls, CallMode::kRequired);
  EXPECT_EQ(out.only_tool, "reset");
  EXPECT_FALSE(out.parallel_calls);
  EXPECT_EQ(out.how.max_tokens, 9);
  EXPECT_EQ(out.how.sampling.top_k, 3);
  EXPECT_EQ(out.how.sampling.seed, 5u);
  EXPECT_THAT(out.how.stop, testing::ElementsAre("a"));
  EXPECT_TRUE(request.thinking);
}

TEST(MessagesApi, WhatIsWrongIsNamed) {
  const auto with = [&](const std::string& rest) {
    return refusal(R"({"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], )" + rest + "}");
  };
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": "hi"}]})"), HasSubstr("max_tokens: is required"));
  EXPECT_NO_THROW(read(R"({"messages": [{"role": "user", "content": "hi"}]})", true));
  EXPECT_THAT(refusal(R"({"max_tokens": 1, "messages": [{"role": "user", "content": "a"},
      {"role": "assistant", "content": "b"}]})"),
              HasSubstr("assistant's own"));
  EXPECT_THAT(refusal(R"({"max_tokens": 1, "messages": [{"role": "user", "content": [
      {"type": "tool_result", "tool_use_id": "t9"}]}]})"),
              HasSubstr("t9"));
  EXPECT_THAT(refusal(R"({"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image"}]}]})"),
              HasSubstr("messages[0].content[0].type: 'image'"));
  EXPECT_THAT(with(R"("n": 2)"), HasSubstr("n: is not a field"));
  EXPECT_THAT(with(R"("stop_sequences": [""])"), HasSubstr("stop_sequences"));
  EXPECT_THAT(with(R"("tools": [{"type": "bash_20250124", "name": "bash"}])"), HasSubstr("bash_20250124"));
  EXPECT_THAT(with(R"("tools": [{"name": "x"}])"), HasSubstr("tools[0].input_schema"));
  EXPECT_THAT(with(R"("tool_choice": {"type": "required"})"), HasSubstr("tool_choice.type"));
  EXPECT_THAT(with(R"("thinking": {"type": "on"})"), HasSubstr("thinking.type"));
  EXPECT_EQ(with(R"("service_tier": "auto", "output_config": {"effort": "low"})"), "");
}

TEST(MessagesApi, ErrorsHaveAnthropicsForm) {
  EXPECT_TRUE(is_messages_path("/v1/messages"));
  EXPECT_TRUE(is_messages_path("/v1/messages/count_tokens"));
  EXPECT_FALSE(is_messages_path("/v1/messagesome"));
  const auto response = messages_error_response(ApiError(401, "no key"), "req_1");
  EXPECT_EQ(response.status, 401);
  EXPECT_EQ(parse_json(response.body, "answer"),
            (Json{{"type", "error"},
                  {"error", {{"type", "authentication_error"}, {"message", "no key"}}},
                  {"request_id", "req_1"}}));
}

}  // namespace
}  // namespace thimble
