#include "serve/chat_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thimble {
namespace {

GenerationRequest read(const char* text) { return read_chat_request(parse_body(text)); }

// The message of the 400 that a body gets; empty where it is read.
std::string refusal(const char* text) {
  try {
    read(text);
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    return e.what();
  }
  return "";
}

TEST(ChatFields, ReadsAConversationWithCalls) {
  const auto request = read(R"({"model": "m", "messages": [
      {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
      {"role": "user", "content": "reset"},
      {"role": "assistant", "content": null, "refusal": null, "tool_calls": [
         {"id": "c1", "type": "function", "function": {"name": "reset", "arguments": "{\"user\": \"a\"}"}}]},
      {"role": "tool", "tool_call_id": "c1", "content": "done"}],
      "tools": [{"type": "function", "function": {"name": "reset", "parameters": {"type": "object"}}}],
      "tool_choice": {"type": "function", "function": {"name": "reset"}}, "parallel_tool_calls": false,
      "temperature": 0.5, "max_completion_tokens": 7, "stop": ["a", "b"], "logit_bias": {"5": -100}, "n": 2,
      "user": "me", "metadata": {"a": "b"}, "store": true})");
  ASSERT_EQ(request.turns.size(), 4u);
  EXPECT_EQ(request.turns[0].role, "system");
  EXPECT_EQ(request.turns[0].content, "be brief");
  EXPECT_EQ(request.turns[2].calls, (std::vector<Call>{{"reset", Json{{"user", "a"}}}}));
  EXPECT_EQ(request.turns[3].call_id, "c1");
  EXPECT_EQ(request.calls, CallMode::kRequired);
  EXPECT_EQ(request.only_tool, "reset");
  EXPECT_FALSE(request.parallel_calls);
  EXPECT_EQ(request.how.max_tokens, 7);
  EXPECT_TRUE(request.temperature_given);
  EXPECT_THAT(request.how.stop, testing::ElementsAre("a", "b"));
  EXPECT_EQ(request.how.sampling.logit_bias.front().bias, -100);
  EXPECT_EQ(request.choices, 2);
}

TEST(ChatFields, WhatIsWrongIsNamed) {
  const char* const kUser = R"({"messages": [{"role": "user", "content": "hi"}], )";
  const auto with = [&](const char* rest) { return refusal((std::string(kUser) + rest + "}").c_str()); };
  using testing::HasSubstr;
  EXPECT_THAT(refusal("{"), HasSubstr("body"));
  EXPECT_THAT(refusal("[]"), HasSubstr("object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("messages: is required"));
  EXPECT_THAT(refusal(R"({"messages": []})"), HasSubstr("messages"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "robot", "content": ""}]})"), HasSubstr("messages[0].role"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user"}]})"), HasSubstr("messages[0].content"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})"),
              HasSubstr("image_url"));
  EXPECT_THAT(refusal(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"),
              HasSubstr("assistant's own"));
  EXPECT_THAT(with(R"("temprature": 1)"), HasSubstr("temprature"));
  EXPECT_THAT(with(R"("temperature": "hot")"), HasSubstr("temperature: must be a number"));
  EXPECT_THAT(with(R"("temperature": -1)"), HasSubstr("temperature"));
  EXPECT_THAT(with(R"("max_tokens": 1.5)"), HasSubstr("whole number"));
  EXPECT_THAT(with(R"("top_logprobs": 2)"), HasSubstr("logprobs"));
  EXPECT_THAT(with(R"("stream_options": {"include_usage": true})"), HasSubstr("stream"));
  EXPECT_THAT(with(R"("stop": "")"), HasSubstr("stop"));
  EXPECT_THAT(with(R"("tool_choice": "maybe")"), HasSubstr("tool_choice"));
  EXPECT_THAT(with(R"("response_format": {"type": "json_schema"})"), HasSubstr("response_format.json_schema"));
  EXPECT_THAT(with(R"("response_format": {"type": "yaml"})"), HasSubstr("yaml"));
  EXPECT_THAT(with(R"("tools": [{"type": "web_search"}])"), HasSubstr("tools"));
  EXPECT_THAT(with(R"("modalities": ["audio"])"), HasSubstr("modalities"));
  EXPECT_THAT(with(R"("logit_bias": {"word": 1})"), HasSubstr("word"));
  EXPECT_EQ(with(R"("temperature": null, "user": "x")"), "");
}

}  // namespace
}  // namespace thimble
