#include "calls/hermes.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

Call call(const char* name, const char* arguments) { return {name, parse_json(arguments, "test")}; }

TEST(Hermes, CallsAreWrittenAsQwenWritesThem) {
  const std::vector<Call> calls = {call("a", R"({"x":1,"y":"é"})"), call("b", "{}")};
  EXPECT_EQ(render_calls(calls),
            "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1, \"y\": \"é\"}}\n</tool_call>\n"
            "<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>");
  EXPECT_EQ(render_answer("Sure.", std::vector<Call>{call("b", "{}")}),
            "Sure.\n<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>");
  EXPECT_EQ(render_answer("Sure.", {}), "Sure.");
}

TEST(Hermes, WhatIsRenderedIsReadBack) {
  const std::vector<Call> calls = {call("a", R"({"x":"</tool_call> y"})"), call("b", R"({"q":{"r":[1,2.5,null]}})")};
  const ParsedAnswer answer = parse_answer(render_answer("Two things.", calls));
  EXPECT_TRUE(answer.parseable());
  EXPECT_EQ(answer.text, "Two things.");
  ASSERT_EQ(answer.calls.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(answer.calls[i].name, calls[i].name);
    EXPECT_TRUE(same_json(answer.calls[i].arguments, calls[i].arguments));
  }
}

TEST(Hermes, PlainDeviationsAreUnderstood) {
  const std::pair<const char*, size_t> cases[] = {
      {"Hello!", 0},
      {"", 0},
      {"<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>", 1},
      {"<tool_call>[{\"name\":\"a\",\"arguments\":{}}, {\"name\":\"b\"}]</tool_call>", 2},
      {"<tool_call>[]</tool_call>", 0},
      {"<tool_call>{\"arguments\": \"{\\\"x\\\": 1}\", \"name\": \"a\"}", 1},
  };
  for (const auto& [text, calls] : cases) {
    const ParsedAnswer answer = parse_answer(text);
    EXPECT_TRUE(answer.parseable()) << text;
    EXPECT_EQ(answer.calls.size(), calls) << text;
  }
}

TEST(Hermes, BrokenBlocksAreReportedAndTheOthersKept) {
  const char* broken[] = {
      "<tool_call>",
      "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}\n</tool_call>",
      "<tool_call>{\"name\": 3}</tool_call>",
      "<tool_call>{\"name\": \"a\", \"arguments\": [1]}</tool_call>",
      "<tool_call>{\"name\": \"a\", \"arguments\": {}, \"id\": 1}</tool_call>",
      "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": 1, \"x\": 2}}</tool_call>",
      "<tool_call>a(x=1)</tool_call>",
      "<tool_call>{\"name\": \"a\xff\"}</tool_call>",
  };
  for (const char* text : broken) EXPECT_EQ(parse_answer(text).problems.size(), 1u) << text;
  const ParsedAnswer mixed = parse_answer("hm <tool_call>x</tool_call> <tool_call>{\"name\":\"a\"}</tool_call> done");
  EXPECT_EQ(mixed.problems.size(), 1u);
  EXPECT_EQ(mixed.calls.size(), 1u);
  EXPECT_EQ(mixed.text, "hm   done");
}

TEST(Hermes, SystemPromptShowsTheTools) {
  const auto tools = parse_tools(R"([{"name": "a"}])", "tools");
  const std::string text = hermes_system("Be kind.", tools);
  EXPECT_TRUE(text.starts_with("Be kind.\n\n# Tools\n\n"));
  EXPECT_NE(text.find("<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"a\""), std::string::npos);
  EXPECT_EQ(hermes_system("Be kind.", {}), "Be kind.");
}

}  // namespace
}  // namespace thimble
