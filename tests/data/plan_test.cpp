#include "data/plan.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/read.h"

namespace thimble {
namespace {

const std::vector<Tool>& tools() {
  static const auto list = parse_tools(
      R"([{"name": "reset", "parameters": {"type": "object", "properties": {"user": {"type": "string"}, "system":
          {"type": "string"}, "note": {"type": "string"}}, "required": ["user", "system"]}}, {"name": "status"}])",
      "tools");
  return list;
}
Row row(const std::string& json) { return parse_rows(json, "rows").front(); }

TEST(Plan, SaysWhatIsMeantAndWhatOfItIsGiven) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"query": "q", "calls": [{"name": "reset", "arguments": {"user": "a", "system": "b"}}]})",
       "reset: user, system"},
      {R"({"query": "q", "calls": [{"name": "status", "arguments": {}}, {"name": "reset", "arguments": {"user": "a",
          "system": "b", "note": "c"}}]})",
       "status; reset: user, system, note"},
      {R"({"query": "q", "calls": [], "answer": "a", "intent": "reset", "missing": "user"})", "reset: no user"},
      {R"({"query": "q", "calls": [], "answer": "a", "intent": "reset", "missing": "system"})",
       "reset: user, no system"},
      {R"({"query": "q", "calls": [], "answer": "a", "intent": "small_talk"})", "small_talk: no tool"},
  };
  for (const auto& [json, plan] : cases) {
    std::string line(json);
    std::erase(line, '\n');
    EXPECT_EQ(plan_of(row(line), tools()), plan);
  }
  EXPECT_THROW(plan_of(row(R"({"query": "q", "calls": [], "answer": "a"})"), tools()), Error);
}

TEST(Plan, IsPartedFromTheAnswerAtTheFirstLineBreak) {
  const auto parts = [](std::string_view text) { return split_plan(text); };
  EXPECT_EQ(parts("a: no tool\nNo.\nSorry."),
            (std::pair<std::string_view, std::string_view>{"a: no tool", "No.\nSorry."}));
  EXPECT_EQ(parts("cut"), (std::pair<std::string_view, std::string_view>{"cut", ""}));
  EXPECT_EQ(parts("\nx"), (std::pair<std::string_view, std::string_view>{"", "x"}));
}

}  // namespace
}  // namespace thimble
