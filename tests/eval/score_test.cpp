#include "eval/score.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

const std::vector<Tool>& tools() {
  static const auto list = parse_tools(R"([{"name": "a"}, {"name": "b"}])", "tools");
  return list;
}

std::vector<Call> calls(const std::string& text) {
  std::vector<Call> list;
  for (const Json& call : parse_json(text, "calls")) list.push_back({call["name"], call["arguments"]});
  return list;
}

RowScore score(const std::string& gold, const std::string& predicted) {
  ParsedAnswer answer;
  answer.calls = calls(predicted);
  return score_row(calls(gold), answer, tools());
}

TEST(Score, ValuesAreComparedLooselyWhereTheRulesSaySo) {
  const std::pair<const char*, const char*> same[] = {
      {R"("Straße")", R"(" STRASSE ")"},
      {R"("É")", "\"e\u0301\""},
      {"1", "1.0"},
      {R"({"x": 1, "y": "A"})", R"({"y": "a", "x": 1.0})"},
      {R"(["A", 2])", R"(["a", 2.0])"},
      {"null", "null"},
      {"true", "true"},
  };
  const std::pair<const char*, const char*> different[] = {
      {R"("1")", "1"},
      {"1", "true"},
      {R"(["a", "b"])", R"(["b", "a"])"},
      {R"("a b")", R"("a  b")"},
      {R"("a")", R"(["a"])"},
      {R"({"x": 1})", R"({"x": 1, "y": 2})"},
      {"0", "null"},
  };
  for (const auto& [a, b] : same) EXPECT_TRUE(same_argument(parse_json(a, "a"), parse_json(b, "b"))) << a << b;
  for (const auto& [a, b] : different) EXPECT_FALSE(same_argument(parse_json(a, "a"), parse_json(b, "b"))) << a << b;
}

TEST(Score, EveryFailureHasItsName) {
  struct Case {
    const char* gold;
    const char* predicted;
    std::optional<Failure> failure;
  };
  const char* a1 = R"([{"name": "a", "arguments": {"x": 1, "y": "s"}}])";
  const char* two = R"([{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}])";
  const Case cases[] = {
      {a1, R"([{"name": "a", "arguments": {"y": " S", "x": 1.0}}])", std::nullopt},
      {"[]", "[]", std::nullopt},
      {"[]", a1, Failure::kFalseCall},
      {a1, "[]", Failure::kMissedCall},
      {a1, R"([{"name": "c", "arguments": {"x": 1, "y": "s"}}])", Failure::kUnknownTool},
      {a1, R"([{"name": "b", "arguments": {"x": 1, "y": "s"}}])", Failure::kWrongTool},
      {a1, R"([{"name": "a", "arguments": {"x": 1}}])", Failure::kMissingArgument},
      {a1, R"([{"name": "a", "arguments": {"x": 1, "y": "s", "z": 0}}])", Failure::kInventedArgument},
      {a1, R"([{"name": "a", "arguments": {"x": "1", "y": "s"}}])", Failure::kWrongType},
      {a1, R"([{"name": "a", "arguments": {"x": 2, "y": "s"}}])", Failure::kWrongValue},
      {a1, R"([{"name": "a", "arguments": {"x": "2", "z": 1}}])", Failure::kMissingArgument},
      {a1, two, Failure::kWrongCount},
      {two, a1, Failure::kWrongCount},
      {two, two, std::nullopt},
      {two, R"([{"name": "b", "arguments": {}}, {"name": "a", "arguments": {}}])", Failure::kWrongTool},
  };
  for (const Case& c : cases) {
    const RowScore row = score(c.gold, c.predicted);
    EXPECT_EQ(row.failure, c.failure) << c.gold << c.predicted;
    EXPECT_EQ(row.exact, !c.failure.has_value());
    EXPECT_EQ(row.details.empty(), row.exact);
  }
  ParsedAnswer broken = parse_answer("<tool_call>{</tool_call>");
  EXPECT_EQ(score_row(calls(a1), broken, tools()).failure, Failure::kUnparseable);
  EXPECT_EQ(score_row({}, broken, tools()).failure, Failure::kUnparseable);
}

TEST(Score, FiguresAddUp) {
  const char* a1 = R"([{"name": "a", "arguments": {"x": 1, "y": "s"}}])";
  const std::vector<RowScore> rows = {
      score(a1, a1),                                                     // exact: 2 right of 2 and 2
      score(a1, R"([{"name": "a", "arguments": {"x": 2, "z": "s"}}])"),  // 0 right of 2 and 2
      score(a1, "[]"),                                                   // 0 right of 0 and 2
      score("[]", "[]"),                                                 // exact
      score("[]", R"([{"name": "b", "arguments": {"x": 1}}])"),          // 0 right of 1 and 0
  };
  const Score total = summarize(rows);
  EXPECT_EQ(total.rows, 5u);
  EXPECT_DOUBLE_EQ(total.exact.value, 0.4);
  EXPECT_DOUBLE_EQ(total.name_accuracy.value, 2.0 / 3);
  EXPECT_DOUBLE_EQ(total.missed_calls.value, 1.0 / 3);
  EXPECT_DOUBLE_EQ(total.false_calls.value, 0.5);
  EXPECT_DOUBLE_EQ(total.argument_f1.value, 2.0 * 2 / (5 + 6));
  EXPECT_LE(total.argument_f1.low, total.argument_f1.value);
  EXPECT_GE(total.argument_f1.high, total.argument_f1.value);
  size_t failures = 0;
  for (const size_t count : total.failures) failures += count;
  EXPECT_EQ(failures, 3u);
  const Json json = score_to_json(total);
  EXPECT_EQ(json["failures"]["missing argument"], 1);
  EXPECT_EQ(json["intervals"]["exact"].size(), 2u);
  EXPECT_EQ(write_json(json), write_json(score_to_json(summarize(rows)))) << "the bootstrap is seeded";
}

TEST(Score, WilsonIntervalsMatchTheLiterature) {
  // Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
  const Rate a = wilson(81, 263, 0);
  EXPECT_NEAR(a.low, 0.2553, 5e-5);
  EXPECT_NEAR(a.high, 0.3662, 5e-5);
  const Rate b = wilson(0, 20, 0);
  EXPECT_EQ(b.low, 0);
  EXPECT_NEAR(b.high, 0.1611, 5e-5);
  EXPECT_EQ(wilson(0, 0, 1).value, 1);
}

}  // namespace
}  // namespace thimble
