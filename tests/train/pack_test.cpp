#include "train/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "train/prefix_tree.h"
#include "train/schedule.h"

namespace thimble {
namespace {

TrainRow row_of(int number, int length, int trained_from, int trained_to) {
  TrainRow row;
  row.row = number;
  for (int i = 0; i < length; ++i) {
    row.tokens.push_back(100 * number + i);
    row.trained.push_back(i >= trained_from && i < trained_to ? 1 : 0);
  }
  return row;
}

std::vector<TrainRow> many_rows() {
  std::vector<TrainRow> rows;
  for (int i = 0; i < 45; ++i) rows.push_back(row_of(i, 20 + (i * 37) % 90, 10, 19));
  return rows;
}

TEST(Pack, ComputesOnlyWhatTheLossNeeds) {
  const TrainRow row = row_of(1, 10, 4, 7);
  EXPECT_EQ(computed_tokens(row), 6);  // token 6 is the last target, predicted at position 5
  EXPECT_EQ(trained_tokens(row), 3);
  EXPECT_EQ(trained_tokens(row_of(1, 5, 0, 1)), 0);  // nothing predicts the first token
}

TEST(Pack, EveryRowOnceAnEpochWithinTheBudget) {
  const auto rows = many_rows();
  const auto steps = pack_epoch(rows, 8, 64, 7, 0);
  ASSERT_EQ(steps.size(), 6u);
  std::multiset<int> seen;
  for (size_t s = 0; s < steps.size(); ++s) {
    size_t in_step = 0;
    int64_t tokens = 0, trained = 0;
    for (const auto& micro : steps[s].micro_batches) {
      EXPECT_TRUE(micro.tokens <= 64 || micro.rows.size() == 1);
      in_step += micro.rows.size();
      int64_t sum = 0;
      for (const int r : micro.rows) {
        seen.insert(r);
        sum += computed_tokens(rows[static_cast<size_t>(r)]);
        trained += trained_tokens(rows[static_cast<size_t>(r)]);
      }
      EXPECT_EQ(sum, micro.tokens);
      tokens += sum;
    }
    EXPECT_EQ(in_step, s + 1 < steps.size() ? 8u : 5u);
    EXPECT_EQ(tokens, steps[s].tokens);
    EXPECT_EQ(trained, steps[s].trained);
  }
  EXPECT_EQ(seen.size(), rows.size());
  EXPECT_EQ(std::set<int>(seen.begin(), seen.end()).size(), rows.size());
}

std::vector<int> order(const std::vector<StepPlan>& steps) {
  std::vector<int> out;
  for (const auto& step : steps)
    for (const auto& micro : step.micro_batches) out.insert(out.end(), micro.rows.begin(), micro.rows.end());
  return out;
}

TEST(Pack, IsDeterministicAndShufflesByEpochAndSeed) {
  const auto rows = many_rows();
  EXPECT_EQ(order(pack_epoch(rows, 8, 64, 7, 0)), order(pack_epoch(rows, 8, 64, 7, 0)));
  EXPECT_NE(order(pack_epoch(rows, 8, 64, 7, 0)), order(pack_epoch(rows, 8, 64, 7, 1)));
  EXPECT_NE(order(pack_epoch(rows, 8, 64, 7, 0)), order(pack_epoch(rows, 8, 64, 8, 0)));
}

TEST(Pack, ARowLongerThanTheBudgetGoesAloneAndWhole) {
  const std::vector<TrainRow> rows = {row_of(1, 500, 10, 500), row_of(2, 20, 3, 20)};
  const auto steps = pack_epoch(rows, 2, 100, 1, 0);
  ASSERT_EQ(steps.at(0).micro_batches.size(), 2u);
  EXPECT_EQ(steps[0].micro_batches[0].tokens, 499);
}

TrainRow text_row(const std::string& prompt, const std::string& answer) {
  TrainRow row;
  for (const char c : prompt + answer) row.tokens.push_back(c);
  row.trained.assign(prompt.size(), 0);
  row.trained.resize(row.tokens.size(), 1);
  return row;
}

// Each segment's text, after its ancestors in brackets.
std::vector<std::string> drawn(const std::vector<TrainRow>& rows, std::vector<int> chosen) {
  const auto tree = prefix_tree(rows, std::move(chosen));
  const auto text = [&](const TreeSegment& s) {
    const auto& tokens = rows[static_cast<size_t>(s.row)].tokens;
    return std::string(tokens.begin() + s.from, tokens.begin() + s.from + s.count);
  };
  std::vector<std::string> out;
  for (const TreeSegment& s : tree) {
    std::string line;
    for (const int a : s.ancestors) line += "[" + text(tree[static_cast<size_t>(a)]) + "]";
    out.push_back(line + text(s));
  }
  return out;
}

TEST(PrefixTree, SharesBeginningsOnceAndNothingWhosePredictionIsTrained) {
  using testing::ElementsAre;
  const std::vector<TrainRow> rows = {text_row("system: red apple ", "yes."),
                                      text_row("system: red apricot ", "no."),
                                      text_row("system: blue ", "no."),
                                      text_row("other ", "a."),
                                      text_row("system: blue ", "yes."),
                                      text_row("sys", "tem: red"),
                                      text_row("", "x")};
  EXPECT_THAT(drawn(rows, {0, 1}),
              ElementsAre("system: red ap", "[system: red ap]ple yes", "[system: red ap]ricot no"));
  EXPECT_THAT(drawn(rows, {1, 0}),
              ElementsAre("system: red ap", "[system: red ap]ple yes", "[system: red ap]ricot no"));
  EXPECT_THAT(drawn(rows, {0, 3}), ElementsAre("other a", "system: red apple yes"));
  // The space before an answer predicts the answer's first letter, so each row keeps its own.
  EXPECT_THAT(drawn(rows, {2, 4}), ElementsAre("system: blue", "[system: blue] no", "[system: blue] yes"));
  EXPECT_THAT(drawn(rows, {0, 1, 2, 3, 4}),
              ElementsAre("other a", "system: ", "[system: ]blue", "[system: ][blue] no", "[system: ][blue] yes",
                          "[system: ]red ap", "[system: ][red ap]ple yes", "[system: ][red ap]ricot no"));
  EXPECT_THAT(drawn(rows, {0, 5}),
              ElementsAre("system: re", "system: red apple yes"));  // learned from the third letter
  EXPECT_THAT(drawn(rows, {6}), ElementsAre());                     // nothing comes before the only token
  EXPECT_EQ(longest_shared(rows), 14);
  EXPECT_EQ(sharable_tokens(rows[2]), 12);
  EXPECT_EQ(sharable_tokens(rows[6]), 0);
}

TEST(PrefixTree, WhatIsSharedTakesNoRoomInABatch) {
  const std::string tools(500, 't');
  std::vector<TrainRow> rows;
  for (int i = 0; i < 20; ++i) rows.push_back(text_row(tools + std::to_string(1000 + 37 * i), "answer."));
  const auto steps = pack_epoch(rows, 20, 100, 1, 0);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_LE(steps[0].micro_batches.size(), 3u);
  int64_t tokens = 0;
  for (const MicroBatch& micro : steps[0].micro_batches) {
    EXPECT_LE(micro.tokens, 600);
    EXPECT_EQ(make_batch(rows, micro).size(), micro.tokens);
    tokens += micro.tokens;
  }
  EXPECT_EQ(tokens, steps[0].tokens);
}

TEST(Pack, BatchHoldsTargetsWeightsAndASegmentForEachRow) {
  const std::vector<TrainRow> rows = {row_of(1, 5, 2, 5), row_of(2, 4, 3, 4)};
  const TrainBatch batch = make_batch(rows, {{0, 1}, 7});
  EXPECT_THAT(batch.tokens, testing::ElementsAre(100, 101, 102, 103, 200, 201, 202));
  EXPECT_THAT(batch.targets, testing::ElementsAre(101, 102, 103, 104, 201, 202, 203));
  EXPECT_THAT(batch.weights, testing::ElementsAre(0, 1, 1, 1, 0, 0, 1));
  EXPECT_EQ(batch.weight(), 4);
  EXPECT_THAT(batch.plan.positions(), testing::ElementsAre(0, 1, 2, 3, 0, 1, 2));
  EXPECT_EQ(batch.plan.segments.at(1).key_first, 4);
}

TEST(Pack, WeightsOfTrainedTokensReachTheBatchAndTheStep) {
  std::vector<TrainRow> rows = {row_of(3, 5, 2, 5), row_of(4, 3, 1, 3)};
  rows[0].weights = {9, 9, 0.5f, 0.25f, 1};
  EXPECT_EQ(trained_weight(rows[0]), 1.75);
  EXPECT_THAT(make_batch(rows, {{0, 1}, 6}).weights, testing::ElementsAre(0, 0.5f, 0.25f, 1, 1, 1));
  EXPECT_EQ(pack_epoch(rows, 2, 100, 1, 0).at(0).weight, 3.75);
  rows[0].weights[3] = 0;
  EXPECT_THROW(pack_epoch(rows, 2, 100, 1, 0), Error);
}

TEST(Pack, NamesARowThatTrainsOnNothing) {
  const std::vector<TrainRow> rows = {row_of(1, 5, 2, 5), row_of(17, 4, 4, 4)};
  try {
    pack_epoch(rows, 2, 100, 1, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("row 17"));
  }
}

TEST(Pack, EvaluationKeepsTheOrder) {
  const auto rows = many_rows();
  int next = 0;
  for (const auto& micro : pack_in_order(rows, 100))
    for (const int r : micro.rows) EXPECT_EQ(r, next++);
  EXPECT_EQ(next, 45);
}

TEST(Schedule, WarmsUpThenDecays) {
  const Schedule cosine{.peak = 2, .warmup_steps = 4, .total_steps = 104, .decay = Decay::kCosine};
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 0), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 3), 2);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 4), 2);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 54), 1);
  EXPECT_GT(learning_rate(cosine, 103), 0);
  const Schedule linear{.peak = 1, .warmup_steps = 0, .total_steps = 10, .decay = Decay::kLinear};
  EXPECT_DOUBLE_EQ(learning_rate(linear, 0), 1);
  EXPECT_DOUBLE_EQ(learning_rate(linear, 9), 0.1);
  const Schedule constant{.peak = 3, .warmup_steps = 2, .total_steps = 10, .decay = Decay::kConstant};
  EXPECT_DOUBLE_EQ(learning_rate(constant, 0), 1.5);
  EXPECT_DOUBLE_EQ(learning_rate(constant, 9), 3);
}

}  // namespace
}  // namespace thimble
