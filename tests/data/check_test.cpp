#include "data/check.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/random.h"
#include "data/fold.h"
#include "data/read.h"
#include "data/similar.h"
#include "data/split.h"
#include "test_data.h"

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<Tool> lock_tools() {
  return parse_tools(
      R"([{"name": "lock", "parameters": {"type": "object", "properties": {"door": {"enum": ["front", "back"]},
    "minutes": {"type": "integer"}}, "required": ["door"]}}])",
      "tools");
}

TEST(FoldWords, KeepsOnlyLettersAndDigits) {
  EXPECT_EQ(fold_words("  Hello,   WORLD! "), "hello world");
  EXPECT_EQ(fold_words("Don't"), fold_words("don’t"));
  EXPECT_EQ(fold_words("Straße 12-b"), "strasse 12 b");
  EXPECT_EQ(fold_words("?!"), "?!");
  EXPECT_EQ(fold_words("\xff"
                       "a"),
            "a");
  EXPECT_EQ(fold_words(""), "");
}

TEST(CheckRows, GoodRowsPass) {
  const auto rows = parse_rows(
      "{\"query\": \"lock the front\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"door\": \"front\", "
      "\"minutes\": 3}}]}\n"
      "{\"query\": \"thanks\", \"calls\": [], \"answer\": \"You're welcome.\"}",
      "t");
  const CheckReport report = check_rows(rows, lock_tools(), "t");
  EXPECT_THAT(report.errors, IsEmpty());
  EXPECT_THAT(report.notes, IsEmpty());
  EXPECT_NO_THROW(report.throw_if_errors());
}

TEST(CheckRows, EveryMistakeIsNamedByItsRow) {
  const auto rows = parse_rows(
      "{\"query\": \"a\", \"calls\": []}\n"
      "{\"query\": \"b\", \"calls\": [], \"answer\": \" \\n\"}\n"
      "{\"query\": \"c\", \"calls\": [{\"name\": \"lok\", \"arguments\": {}}]}\n"
      "{\"query\": \"d\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"door\": \"side\"}}]}\n"
      "{\"query\": \"e\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"door\": \"back\"}}, {\"name\": \"lock\", "
      "\"arguments\": {}}]}\n"
      "{\"query\": \"f\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"door\": \"back\", \"who\": \"me\"}}]}\n"
      "{\"query\": \"g\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"door\": \"back\"}}], \"answer\": "
      "\"Done.\"}\n"
      "{\"query\": \"h\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"door\": \"back\"}}], \"missing\": "
      "\"door\"}\n"
      "{\"query\": \"i\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"door\": \"back\"}}], \"intent\": "
      "\"lock\"}\n"
      "{\"query\": \"j\", \"calls\": [], \"answer\": \"a\", \"intent\": \"lock\"}\n"
      "{\"query\": \"k\", \"calls\": [], \"answer\": \"a\", \"intent\": \"lock\", \"missing\": \"minutes\"}\n"
      "{\"query\": \"l\", \"calls\": [], \"answer\": \"a\", \"intent\": \"look\", \"missing\": \"door\"}\n"
      "{\"query\": \"m\", \"calls\": [], \"answer\": \"a\", \"intent\": \"lock\", \"missing\": \"door\"}\n"
      "{\"query\": \"n\", \"calls\": [], \"answer\": \"a\", \"intent\": \"look\"}",
      "t");
  const CheckReport report = check_rows(rows, lock_tools(), "t");
  EXPECT_THAT(
      report.errors,
      testing::UnorderedElementsAre(
          HasSubstr("t: row 9: there are calls and an intent"), HasSubstr("t: row 10: the intent lock is a tool"),
          HasSubstr("t: row 11: \"minutes\" is said to be missing, but the intent lock"),
          HasSubstr("t: row 12: \"door\" is said to be missing, but the intent look"),
          HasSubstr("t: row 1: there are no calls and no answer"), HasSubstr("t: row 2: there are no calls"),
          HasSubstr("t: row 3: the call is of \"lok\""), HasSubstr("t: row 4: the call of lock does not fit"),
          HasSubstr("t: row 5: call 2 of lock does not fit the tool's schema: \"door\" is missing"),
          HasSubstr("t: row 6: the call of lock has the argument \"who\""), HasSubstr("t: row 7: there are calls and"),
          HasSubstr("t: row 8: \"door\" is said to be missing")));
  EXPECT_THROW(report.throw_if_errors(), Error);
}

TEST(CheckRows, AnswersThatAreNotWantedMayBreakSchemasButNotBeEmptyOrRight) {
  const auto rows = parse_rows(
      "{\"query\": \"a\", \"calls\": [], \"answer\": \"A\", \"rejected\": {\"calls\": [{\"name\": \"lok\", "
      "\"arguments\": {}}]}}\n"
      "{\"query\": \"b\", \"calls\": [{\"name\": \"lok\", \"arguments\": {}}], \"label\": false}\n"
      "{\"query\": \"c\", \"calls\": [], \"answer\": \"A\", \"rejected\": {\"answer\": \" \"}}\n"
      "{\"query\": \"d\", \"calls\": [], \"answer\": \"A\", \"rejected\": {\"answer\": \"A\"}}\n"
      "{\"query\": \"e\", \"calls\": [], \"answer\": \"A\", \"rejected\": {\"answer\": \"B\"}}\n"
      "{\"query\": \"e\", \"calls\": [], \"answer\": \"A\", \"rejected\": {\"answer\": \"C\"}}",
      "t");
  const CheckReport report = check_rows(rows, lock_tools(), "t");
  EXPECT_THAT(report.errors, testing::ElementsAre(HasSubstr("t: row 3: the rejected answer is empty"),
                                                  HasSubstr("t: row 4: the rejected answer is the right one")));
  EXPECT_THAT(report.notes, testing::IsEmpty()) << "one request may have several wrong answers";
  EXPECT_THAT(check_test_rows(rows, lock_tools(), "t").errors,
              testing::ElementsAre(HasSubstr("t: row 2: its answer has the label false")));
}

TEST(CheckRows, ToolsOfARowAreItsOwn) {
  const auto rows = parse_rows(
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": {}}}]}], "tools": [{"name": "g"}]})",
      "t");
  EXPECT_THAT(check_rows(rows, lock_tools(), "t").errors, IsEmpty());
}

TEST(CheckRows, ToolsThatCantBeHeldToAreRefused) {
  const auto tools = parse_tools(R"([{"name": "a", "parameters": {"type": "object", "minProperties": 1}}])", "tools");
  EXPECT_THAT(check_rows({}, tools, "t").errors,
              ElementsAre(HasSubstr("tool a: #: the schema keyword \"minProperties\"")));
}

TEST(CheckRows, RepeatedAndContradictingRequestsAreNoted) {
  const auto rows = parse_rows(
      "{\"query\": \"Lock the front door now please, I am leaving\", \"calls\": [{\"name\": \"lock\", \"arguments\": "
      "{\"door\": \"front\"}}]}\n"
      "{\"query\": \"lock the FRONT door now please -- I am leaving!\", \"calls\": [{\"name\": \"lock\", "
      "\"arguments\": {\"door\": \"front\"}}]}\n"
      "{\"query\": \"lock the front door now please i am leaving.\", \"calls\": [{\"name\": \"lock\", \"arguments\": "
      "{\"door\": \"back\"}}]}\n"
      "{\"query\": \"lock the front door now please i am leaving you\", \"calls\": [], \"answer\": \"Bye.\"}",
      "t");
  const CheckReport report = check_rows(rows, lock_tools(), "t");
  EXPECT_THAT(report.errors, IsEmpty());
  EXPECT_THAT(report.notes, ElementsAre(HasSubstr("but have other calls; make them agree: 3 (1)"),
                                        HasSubstr("that repeat another row (in brackets): 2 (1)"),
                                        HasSubstr("nearly the same as another row (in brackets): 4 (1)")));
}

TEST(CheckLeaks, TestRowsThatAreTrainedOnAreRefusedByNumber) {
  const auto train = parse_rows(
      "{\"query\": \"Lock it.\", \"calls\": []}\n{\"query\": \"the office on the second floor is far too cold today\", "
      "\"calls\": []}",
      "a");
  const auto test = parse_rows(
      "{\"query\": \"unlock it\", \"calls\": []}\n{\"query\": \"LOCK it!\", \"calls\": []}\n"
      "{\"query\": \"The office on the second floor is far too warm today.\", \"calls\": []}\n"
      "{\"query\": \"The office on the second floor is far too cold\", \"calls\": []}",
      "b");
  const CheckReport report = check_leaks(train, test, "train.jsonl", "test.jsonl");
  EXPECT_THAT(report.errors, ElementsAre(HasSubstr("test.jsonl: row 2 is also trained on, as row 1 of train.jsonl")));
  EXPECT_THAT(report.notes,
              ElementsAre(HasSubstr(
                  "test.jsonl: rows that are nearly the same as a row of train.jsonl (in brackets): 3 (2), 4 (2).")));
}

TEST(Similar, FindsExactlyThePairsThatACompleteSearchFinds) {
  Random random(5);
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) {
    std::string text;
    const uint64_t length = 1 + random.below(12);
    for (uint64_t j = 0; j < length; ++j) text += std::string(1, static_cast<char>('a' + random.below(3))) + " ";
    texts.push_back(text);
  }
  for (const double threshold : {0.5, 0.8, 1.0}) {
    size_t expected = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      for (size_t j = i + 1; j < texts.size(); ++j) {
        const auto a = word_pairs(texts[i]), b = word_pairs(texts[j]);
        std::vector<uint64_t> both;
        std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
        const double all = static_cast<double>(a.size() + b.size() - both.size());
        expected += static_cast<double>(both.size()) / all >= threshold;
      }
    }
    EXPECT_EQ(similar_within(texts, threshold).size(), expected) << threshold;
    EXPECT_EQ(similar_between(texts, texts, threshold).size(), 2 * expected + texts.size()) << threshold;
  }
}

TEST(SplitRows, IsStratifiedSeededAndKeepsRepeatsTogether) {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    const char* calls = i % 4 == 0   ? "[]"
                        : i % 4 == 1 ? "[{\"name\": \"rare\", \"arguments\": {}}]"
                                     : "[{\"name\": \"lock\", \"arguments\": {}}]";
    text +=
        fmt::format("{{\"query\": \"request number {}{}\", \"calls\": {}}}\n", i / 2 * 2, i % 2 == 0 ? "" : "!", calls);
  }
  const auto rows = parse_rows(text, "t");
  const Split split = split_rows(rows, 0.1, 1);
  EXPECT_EQ(split.train.size() + split.dev.size(), rows.size());
  EXPECT_EQ(split.dev.size(), 40u);
  for (size_t i = 0; i < split.dev.size(); i += 2)
    EXPECT_EQ(split.dev[i] / 2, split.dev[i + 1] / 2) << "both of a pair";
  size_t none = 0;
  for (const size_t i : split.dev) none += rows[i].calls.empty();
  EXPECT_EQ(none, 10u);
  EXPECT_EQ(split_rows(rows, 0.1, 1).dev, split.dev);
  EXPECT_NE(split_rows(rows, 0.1, 2).dev, split.dev);
  EXPECT_TRUE(split_rows(rows, 0, 1).dev.empty());
  EXPECT_EQ(split_rows(std::span(rows).first(4), 0.05, 1).dev.size(), 2u);
  EXPECT_EQ(split_rows(std::span(rows).first(1), 0.05, 1).train.size(), 1u);
}

TEST(CheckRows, RealDataSetsPass) {
  THIMBLE_REQUIRE_DATA(test::data("snips/train_2100.jsonl"));
  for (const auto& [folder, train, tested] : {std::tuple{"snips", "train_2100.jsonl", "valid.jsonl"},
                                              std::tuple{"home", "train.jsonl", "dev_new_devices.jsonl"}}) {
    const auto path = test::data(folder);
    const auto tools = parse_tools(read_file(path / "tools.json"), "tools.json");
    const auto rows = read_rows(path / train), test_rows = read_rows(path / tested);
    EXPECT_THAT(check_rows(rows, tools, train).errors, IsEmpty());
    EXPECT_THAT(check_test_rows(test_rows, tools, tested).errors, IsEmpty());
    EXPECT_THAT(check_leaks(rows, test_rows, train, tested).errors, IsEmpty());
  }
}

}  // namespace
}  // namespace thimble
