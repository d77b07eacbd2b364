#include "train/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
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
