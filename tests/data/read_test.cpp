#include "data/read.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "test_data.h"

namespace thimble {
namespace {

TEST(ReadRows, ShortFormIsRead) {
  const auto rows = parse_rows(
      "{\"id\": \"a\", \"query\": \"lock it\", \"calls\": [{\"name\": \"lock\", \"arguments\": {\"x\": 1}}]}\r\n\n"
      "{\"query\": \"hi\", \"calls\": [], \"answer\": \"Hello.\", \"kind\": \"none\"}",
      "t.jsonl");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].id, "a");
  EXPECT_EQ(rows[0].query(), "lock it");
  EXPECT_EQ(rows[0].calls.at(0).name, "lock");
  EXPECT_EQ(rows[1].number, 3);
  EXPECT_EQ(rows[1].answer, "Hello.");
  EXPECT_EQ(rows[1].kind, "none");
}

TEST(ReadRows, ConversationalFormIsReadWithArgumentsAsObjectOrText) {
  const auto rows = parse_rows(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"},)"
      R"({"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",)"
      R"("function": {"name": "f", "arguments": "{\"x\": 2}"}}]},)"
      R"({"role": "tool", "tool_call_id": "1", "content": "ok"},)"
      R"({"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "g", "arguments": {"y": [1]}}}]}],)"
      R"("tools": [{"name": "f"}, {"name": "g"}], "id": 7})",
      "t.jsonl");
  ASSERT_EQ(rows.size(), 1u);
  const Row& row = rows[0];
  EXPECT_EQ(row.id, "7");
  ASSERT_EQ(row.turns.size(), 4u);
  EXPECT_EQ(row.turns[2].calls.at(0).arguments["x"], 2);
  EXPECT_EQ(row.turns[3].call_id, "1");
  EXPECT_EQ(row.query(), "q");
  EXPECT_EQ(row.calls.at(0).name, "g");
  ASSERT_TRUE(row.tools.has_value());
  EXPECT_EQ(row.tools->size(), 2u);
}

TEST(ReadRows, RowsAndMessagesHaveWeights) {
  const auto rows = parse_rows(
      R"({"query": "a", "calls": [], "answer": "b", "weight": 0.5})"
      "\n"
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.25},)"
      R"({"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}], "weight": 2})"
      "\n"
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]})",
      "t");
  EXPECT_EQ(rows[0].weight, 0.5);
  EXPECT_EQ(rows[0].answer_weight, 1);
  EXPECT_EQ(rows[1].weight, 2);
  EXPECT_EQ(rows[1].turns[1].weight, 0.25);
  EXPECT_EQ(rows[1].answer_weight, 1);
  EXPECT_EQ(rows[2].answer_weight, 0);
}

TEST(ReadRows, RejectedAnswersAndLabelsAreReadInEveryForm) {
  const std::string user = R"({"role": "user", "content": "q"})", good = R"({"role": "assistant", "content": "a"})",
                    bad = R"({"role": "assistant", "content": "b"})";
  const auto rows = parse_rows(
      R"({"query": "q", "calls": [], "answer": "a", "rejected": {"calls": [{"name": "f", "arguments": {}}], "plan": "p"}})"
      "\n" R"({"messages": [)" + user + "," + good + R"(], "rejected": {"answer": "b"}})"
      "\n" R"({"prompt": [)" + user + R"(], "chosen": [)" + good + R"(], "rejected": [)" + bad + "]}"
      "\n" R"({"messages": [)" + user + R"(], "chosen": [)" + good + R"(], "rejected": [)" + bad + "]}"
      "\n" R"({"chosen": [)" + user + "," + good + R"(], "rejected": [)" + user + "," + bad + "]}"
      "\n" R"({"prompt": [)" + user + R"(], "completion": [)" + good + R"(], "label": false})"
      "\n" R"({"query": "q", "calls": [], "answer": "a", "label": true})",
      "t");
  ASSERT_EQ(rows.size(), 7u);
  for (const Row& row : rows) {
    EXPECT_EQ(row.query(), "q") << row.number;
    EXPECT_EQ(row.turns.size(), 1u) << row.number;
    EXPECT_EQ(row.answer, "a") << row.number;
  }
  EXPECT_EQ(rows[0].rejected->calls.at(0).name, "f");
  EXPECT_EQ(rows[0].rejected->plan, "p");
  for (size_t i = 1; i < 5; ++i) {
    ASSERT_TRUE(rows[i].rejected) << i;
    EXPECT_EQ(rows[i].rejected->text, "b") << i;
  }
  EXPECT_EQ(rows[5].label, false);
  EXPECT_EQ(rows[6].label, true);
  EXPECT_FALSE(rows[6].rejected);
}

TEST(ReadRows, MistakesAreNamedByFileAndRow) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"query": "a", "calls": [], "anser": "x"})", "unknown key \"anser\""},
      {R"({"query": 3, "calls": []})", "\"query\" must be a string"},
      {R"({"query": "a"})", "\"calls\" is missing"},
      {R"({"query": "a", "calls": {}})", "\"calls\" must be a list"},
      {R"({"query": "a", "calls": [{"name": "f"}]})", "\"arguments\" is missing"},
      {R"({"query": "a", "calls": [{"name": "f", "arguments": [1]}]})", "must be an object"},
      {R"({"query": "a", "calls": [{"name": "f", "arguments": "{"}]})", "not usable JSON"},
      {R"({"query": "a", "calls": [{"name": "f", "arguments": {}, "id": 1}]})", "unknown key \"id\""},
      {R"({"query": "a", "calls": [], "calls": []})", "stands twice"},
      {R"({"query": "a", "calls": [)", "not usable JSON"},
      {"{\"query\": \"\xc3\x28\", \"calls\": []}", "not usable JSON"},
      {"[1]", "must be a JSON object"},
      {"{}", "needs \"query\" and \"calls\""},
      {R"({"messages": []})", "last message must be the assistant's"},
      {R"({"messages": [{"role": "user", "content": "a"}]})", "last message must be the assistant's"},
      {R"({"messages": [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": "b"}]})",
       "must be a string"},
      {R"({"messages": [{"role": "bot", "content": "a"}]})", "unknown role \"bot\""},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]})", "\"content\" is missing"},
      {R"({"messages": [{"role": "user", "content": "a", "tool_calls": []}]})", "only the assistant"},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "a"}]})", "must be the first"},
      {R"({"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "a"}]})",
       "before the answer"},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}], "tools": 3})",
       "tools"},
      {"\xef\xbb\xbf{}", "byte order mark"},
      {R"({"query": "a", "calls": [], "weight": 0})", "\"weight\" must be above 0"},
      {R"({"query": "a", "calls": [], "weight": "1"})", "\"weight\" must be a number"},
      {R"({"messages": [{"role": "user", "content": "a", "weight": 1}, {"role": "assistant", "content": "b"}]})",
       "only the assistant's messages have a \"weight\""},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 2}]})",
       "\"weight\" must be from 0 to 1"},
      {R"({"query": "a", "calls": [], "rejected": "b"})", "\"rejected\" must be an object"},
      {R"({"query": "a", "calls": [], "rejected": {"text": "b"}})", "rejected: unknown key \"text\""},
      {R"({"query": "a", "calls": [], "rejected": {"plan": "a\nb"}})", "is one line"},
      {R"({"query": "a", "calls": [], "label": 1})", "\"label\" must be true or false"},
      {R"({"query": "a", "calls": [], "label": true, "rejected": {"answer": "b"}})", "leave one out"},
      {R"({"prompt": [{"role": "user", "content": "a"}]})", "neither \"chosen\" nor \"completion\""},
      {R"({"prompt": "a", "chosen": "b", "rejected": "c"})", "\"prompt\" must be a list of messages"},
      {R"({"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}]})",
       "no \"rejected\" one"},
      {R"({"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],)"
       R"("rejected": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "c"}]})",
       "answer different conversations"},
  };
  for (const auto& [line, expected] : cases) {
    try {
      parse_rows(line, "t.jsonl");
      ADD_FAILURE() << line;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("t.jsonl: row 1")) << line;
      EXPECT_THAT(error.what(), testing::HasSubstr(expected)) << line;
    }
  }
}

TEST(ReadRows, RealDataSetsAreReadWhole) {
  THIMBLE_REQUIRE_DATA(test::data("snips/train.jsonl"));
  EXPECT_EQ(read_rows(test::data("snips/train.jsonl")).size(), 13084u);
  EXPECT_EQ(read_rows(test::data("home/train.jsonl")).size(), 6000u);
}

}  // namespace
}  // namespace thimble
