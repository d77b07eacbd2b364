#include "serve/responses_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/fields.h"
#include "serve/responses_api_fields.h"

namespace thimble {
namespace {

using testing::HasSubstr;

ResponsesRequest read(const std::string& text, const ResponseStore& store = {}, const std::string& owner = "") {
  return read_responses_request(parse_body(text), store, owner);
}

std::string refusal(const std::string& text, const ResponseStore& store = {}, const std::string& owner = "") {
  try {
    read(text, store, owner);
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    return e.what();
  }
  return "";
}

StoredResponse stored(const std::string& id, const std::string& said, const std::string& owner = "") {
  return {Json{{"id", id},
               {"output",
                {{{"id", "msg_" + id},
                  {"type", "message"},
                  {"role", "assistant"},
                  {"content", {{{"type", "output_text"}, {"text", said}}}}}}}},
          Json::array({{{"id", "in_" + id},
                        {"type", "message"},
                        {"role", "user"},
                        {"content", {{{"type", "input_text"}, {"text", "question"}}}}}}),
          owner};
}

TEST(ResponsesApi, ItemsOfOneAnswerAreOneTurn) {
  const auto out = read(R"({"instructions": "be brief", "input": [
      {"role": "user", "content": [{"type": "input_text", "text": "reset"}]},
      {"type": "reasoning", "id": "rs_1", "summary": []},
      {"type": "message", "role": "assistant", "content": "I do."},
      {"type": "function_call", "call_id": "c1", "name": "reset", "arguments": "{\"user\": \"a\"}"},
      {"type": "function_call", "call_id": "c2", "name": "tell", "arguments": ""},
      {"type": "function_call_output", "call_id": "c2", "output": "told"},
      {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "done"}]}],
      "tools": [{"type": "function", "name": "reset", "parameters": {"type": "object"}, "strict": true}],
      "tool_choice": {"type": "function", "name": "reset"}, "max_output_tokens": 5,
      "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "integer"}}, "verbosity": "low"}})");
  const auto& turns = out.generation.turns;
  ASSERT_EQ(turns.size(), 5u);
  EXPECT_EQ(turns[0].content, "be brief");
  EXPECT_EQ(turns[2].content, "I do.");
  EXPECT_EQ(turns[2].calls, (std::vector<Call>{{"reset", Json{{"user", "a"}}}, {"tell", Json::object()}}));
  EXPECT_EQ(turns[3].name, "tell");
  EXPECT_EQ(turns[4].content, "done");
  EXPECT_EQ(out.items.size(), 7u);
  for (const Json& item : out.items) EXPECT_FALSE(item["id"].get<std::string>().empty());
  EXPECT_EQ(out.generation.only_tool, "reset");
  EXPECT_EQ(*out.generation.text_schema, (Json{{"type", "integer"}}));
  EXPECT_EQ(out.echo["tools"][0]["name"], "reset");
}

TEST(ResponsesApi, GoesOnFromWhatItRemembers) {
  ResponseStore store;
  store.put(stored("resp_1", "answer"));
  const auto out = read(R"({"input": "and?", "previous_response_id": "resp_1"})", store);
  ASSERT_EQ(out.generation.turns.size(), 3u);
  EXPECT_EQ(out.generation.turns[0].content, "question");
  EXPECT_EQ(out.generation.turns[1].content, "answer");
  EXPECT_EQ(out.generation.turns[2].content, "and?");
  EXPECT_THAT(refusal(R"({"input": "and?", "previous_response_id": "resp_2"})", store), HasSubstr("resp_2"));
  const auto again = read(R"({"input": [{"type": "item_reference", "id": "in_resp_1"}]})", store);
  EXPECT_EQ(again.generation.turns.front().content, "question");
}

TEST(ResponsesApi, WhatOneKeyAskedAnotherDoesNotSee) {
  ResponseStore store;
  store.put(stored("resp_1", "secret", "ann"));
  EXPECT_NE(store.find("resp_1", "ann"), nullptr);
  EXPECT_EQ(store.find("resp_1", "bob"), nullptr);
  EXPECT_EQ(store.find("resp_1", ""), nullptr);
  EXPECT_FALSE(store.drop("resp_1", "bob"));
  EXPECT_THAT(refusal(R"({"input": "and?", "previous_response_id": "resp_1"})", store, "bob"), HasSubstr("not found"));
  EXPECT_THAT(refusal(R"({"input": [{"type": "item_reference", "id": "in_resp_1"}]})", store, "bob"),
              HasSubstr("in_resp_1"));
  EXPECT_TRUE(store.drop("resp_1", "ann"));
  EXPECT_EQ(store.find("resp_1", "ann"), nullptr);
}

TEST(ResponsesApi, TheOldestGoWhenThereAreTooMany) {
  ResponseStore store;
  for (size_t i = 0; i <= ResponseStore::kMostKept; ++i) store.put(stored("resp_" + std::to_string(i), "x"));
  EXPECT_EQ(store.find("resp_0", ""), nullptr);
  EXPECT_NE(store.find("resp_1", ""), nullptr);
  store.put(stored("large_1", std::string(ResponseStore::kMostBytes / 2, 'x')));
  store.put(stored("large_2", std::string(ResponseStore::kMostBytes / 2, 'x')));
  EXPECT_EQ(store.find("large_1", ""), nullptr);
  EXPECT_NE(store.find("large_2", ""), nullptr);
  store.put(stored("larger", std::string(ResponseStore::kMostBytes, 'x')));
  EXPECT_EQ(store.find("larger", ""), nullptr);
}

TEST(ResponsesApi, WhatIsNotOfferedIsNamed) {
  const auto with = [&](const std::string& rest) { return refusal(R"({"input": "hi", )" + rest + "}"); };
  EXPECT_THAT(refusal("{}"), HasSubstr("input: is required"));
  EXPECT_THAT(refusal(R"({"input": []})"), HasSubstr("input"));
  EXPECT_THAT(refusal(R"({"input": [{"role": "user", "content": [{"type": "input_image"}]}]})"),
              HasSubstr("input[0].content[0].type: 'input_image'"));
  EXPECT_THAT(refusal(R"({"input": [{"type": "function_call_output", "call_id": "c9", "output": ""}]})"),
              HasSubstr("c9"));
  EXPECT_THAT(refusal(R"({"input": [{"role": "assistant", "content": "b"}]})"), HasSubstr("assistant's own"));
  EXPECT_THAT(with(R"("tools": [{"type": "web_search"}])"), HasSubstr("tools[0].type: 'web_search'"));
  EXPECT_THAT(with(R"("background": true)"), HasSubstr("background"));
  EXPECT_THAT(with(R"("truncation": "auto")"), HasSubstr("truncation"));
  EXPECT_THAT(with(R"("conversation": "conv_1")"), HasSubstr("conversation"));
  EXPECT_THAT(with(R"("include": ["file_search_call.results"])"), HasSubstr("file_search_call.results"));
  EXPECT_THAT(with(R"("n": 2)"), HasSubstr("n: is not a field"));
  EXPECT_EQ(with(R"("background": false, "truncation": "disabled", "user": "x", "metadata": {"a": "b"})"), "");
}

}  // namespace
}  // namespace thimble
