#include "serve/answer_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "calls/hermes.h"
#include "core/random.h"

namespace thimble {
namespace {

using Kind = AnswerEvent::Kind;

WholeAnswer whole(AnswerStream::Form form, std::string_view text, Random* cuts = nullptr) {
  AnswerStream stream(form);
  WholeAnswer out;
  while (!text.empty()) {
    const size_t n = cuts == nullptr ? text.size() : 1 + cuts->below(text.size());
    for (const AnswerEvent& event : stream.feed(text.substr(0, n))) out.add(event);
    text.remove_prefix(n);
  }
  for (const AnswerEvent& event : stream.finish()) out.add(event);
  return out;
}

const std::string kTwoCalls = render_calls(std::vector<Call>{
    {"reset", Json{{"user", "a\"}</tool_call>{"}, {"deep", Json{{"list", {1, 2, "}"}}}}}}, {"status", Json::object()}});

TEST(AnswerStream, TellsTextAsItComes) {
  AnswerStream stream({.calls = true});
  EXPECT_THAT(stream.feed("Hello"), testing::ElementsAre(AnswerEvent{Kind::kText, "Hello"}));
  EXPECT_THAT(stream.feed(" <to"), testing::IsEmpty());  // may be the beginning of a call
  EXPECT_THAT(stream.feed("day>"), testing::ElementsAre(AnswerEvent{Kind::kText, " <today>"}));
}

TEST(AnswerStream, TellsArgumentsAsTheyCome) {
  AnswerStream stream({.calls = true});
  EXPECT_THAT(stream.feed("<tool_call>\n{\"name\": \"reset\", \"arguments\": "), testing::IsEmpty());
  EXPECT_THAT(stream.feed("{\"user"),
              testing::ElementsAre(AnswerEvent{Kind::kCall, "reset"}, AnswerEvent{Kind::kArguments, "{\"user"}));
  EXPECT_THAT(stream.feed("\": 1}}\n</tool_"), testing::ElementsAre(AnswerEvent{Kind::kArguments, "\": 1}"}));
  EXPECT_THAT(stream.feed("call>"), testing::IsEmpty());
}

TEST(AnswerStream, PartsPlanTextAndCalls) {
  const auto answer = whole({.plan = true, .calls = true}, "reset: user\n" + kTwoCalls);
  EXPECT_EQ(answer.reasoning, "reset: user");
  EXPECT_EQ(answer.text, "");
  ASSERT_EQ(answer.calls.size(), 2u);
  EXPECT_EQ(answer.calls[0].name, "reset");
  EXPECT_EQ(answer.calls[0].arguments, R"({"user": "a\"}</tool_call>{", "deep": {"list": [1, 2, "}"]}})");
  EXPECT_EQ(answer.calls[1].arguments, "{}");
}

TEST(AnswerStream, PartsThinking) {
  const auto answer = whole({}, "<think>\nhm </thin\n</think>\n\nYes");
  EXPECT_EQ(answer.reasoning, "\nhm </thin");
  EXPECT_EQ(answer.text, "Yes");
  EXPECT_EQ(whole({.thinking = true}, "so</think>Yes").reasoning, "so");
  EXPECT_EQ(whole({}, "No <think> here").text, "No <think> here");
}

TEST(AnswerStream, LosesNothingOfWhatIsNoCall) {
  EXPECT_EQ(whole({.calls = true}, "<tool_call>nonsense</tool_call>").text, "<tool_call>nonsense</tool_call>");
  EXPECT_EQ(whole({.calls = true}, "text <tool_call>\n{\"name\": \"re").text, "text<tool_call>\n{\"name\": \"re");
  EXPECT_EQ(whole({}, "<tool_call>no tools</tool_call>").text, "<tool_call>no tools</tool_call>");
}

TEST(AnswerStream, ReadsCallsInOtherForms) {
  const auto answer = whole({.calls = true}, "Sure:\n<tool_call>[{\"name\": \"a\"}, {\"name\": \"b\", \"arguments\": "
                                             "{\"x\": 1}}]</tool_call>");
  EXPECT_EQ(answer.text, "Sure:");
  ASSERT_EQ(answer.calls.size(), 2u);
  EXPECT_EQ(answer.calls[1].arguments, "{\"x\": 1}");
}

TEST(AnswerStream, EndsInTheMiddleOfArguments) {
  const auto answer = whole({.calls = true}, "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": \"lon");
  ASSERT_EQ(answer.calls.size(), 1u);
  EXPECT_EQ(answer.calls[0].arguments, "{\"x\": \"lon");
}

// However a text is cut into pieces, the same comes out, and nothing is ever thrown.
TEST(AnswerStream, DoesNotDependOnWhereTextIsCut) {
  const std::vector<std::string> parts = {"<think>", "</think>", "<tool_call>", "</tool_call>", "\n", " ", "text", "{",
                                          "}", "\"", "\\", "\n{\"name\": \"a\", \"arguments\": {", "}}\n",
                                          "\n{\"name\": \"a\\\"b\", \"arguments\": {\"x\": [1]}}\n", "<tool", kTwoCalls};
  Random random(5);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (size_t n = random.below(8); n > 0; --n) text += parts[random.below(parts.size())];
    const AnswerStream::Form form{.plan = random.below(3) == 0, .calls = random.below(4) != 0,
                                  .thinking = random.below(4) == 0};
    const auto once = whole(form, text), cut = whole(form, text, &random);
    EXPECT_EQ(once.text, cut.text) << text;
    EXPECT_EQ(once.reasoning, cut.reasoning) << text;
    ASSERT_EQ(once.calls.size(), cut.calls.size()) << text;
    for (size_t c = 0; c < once.calls.size(); ++c) {
      EXPECT_EQ(once.calls[c].name, cut.calls[c].name) << text;
      EXPECT_EQ(once.calls[c].arguments, cut.calls[c].arguments) << text;
    }
  }
}

}  // namespace
}  // namespace thimble
