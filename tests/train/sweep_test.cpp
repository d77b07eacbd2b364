#include "train/sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "core/random.h"
#include "train/oracle_case.h"

namespace thimble {
namespace {

std::vector<TrainRow> rows(int count, uint64_t seed) {
  std::vector<TrainRow> out;
  Random random(seed);
  for (int i = 0; i < count; ++i) {
    TrainRow row;
    row.row = i + 1;
    for (int t = 0; t < 12; ++t) {
      row.tokens.push_back(t < 3 ? static_cast<int32_t>(random.below(40)) : row.tokens[static_cast<size_t>(t - 3)]);
      row.trained.push_back(t >= 3 ? 1 : 0);
    }
    out.push_back(row);
  }
  return out;
}

TrainConfig config() {
  TrainConfig c;
  c.lora.rank = 4;
  c.lora.alpha = 8;
  c.learning_rate = 2e-4;  // too low by far: the highest of the five learns most
  c.epochs = 32;
  c.batch_rows = 8;
  c.precision = GemmPrecision::kF32;
  return c;
}

TEST(Sweep, HalvesToTheOneThatLearnsMost) {
  const auto model = load_model(test::golden("train") / "llama" / "model");
  const auto train_rows = rows(32, 1), dev_rows = rows(8, 2);
  std::map<int, std::vector<SweepTrial>> by_rung;
  SweepCallbacks callbacks;
  callbacks.on_trial = [&](const SweepTrial& t) { by_rung[t.rung].push_back(t); };
  const SweepResult result = sweep(*model, config(), train_rows, dev_rows, 600, callbacks);
  ASSERT_EQ(result.trials.size(), 15u);
  EXPECT_FALSE(result.out_of_time);
  EXPECT_EQ(result.rungs, 5);
  std::vector<size_t> sizes;
  for (const auto& [rung, trials] : by_rung) {
    sizes.push_back(trials.size());
    for (const SweepTrial& t : trials) {
      EXPECT_EQ(t.steps, by_rung[1][0].steps << (rung - 1));
      EXPECT_FLOAT_EQ(static_cast<float>(t.alpha / t.rank), 2);
    }
  }
  EXPECT_EQ(sizes, (std::vector<size_t>{15, 8, 4, 2, 1}));
  const SweepTrial& best = result.trials.front();
  EXPECT_EQ(best.rung, 5);
  EXPECT_DOUBLE_EQ(best.learning_rate, 8e-4);
  for (size_t i = 1; i < result.trials.size(); ++i) EXPECT_LE(result.trials[i].rung, result.trials[i - 1].rung);
}

TEST(Sweep, RefusesWhatItCantDoInTimeSayingWhatItTakes) {
  const auto model = load_model(test::golden("train") / "llama" / "model");
  const auto train_rows = rows(32, 1), dev_rows = rows(8, 2);
  try {
    sweep(*model, config(), train_rows, dev_rows, 1e-3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("--minutes 1 or more"));
  }
  EXPECT_THROW(sweep(*model, config(), train_rows, {}, 600), Error);
  std::atomic<bool> cancelled{true};
  SweepCallbacks callbacks;
  callbacks.cancelled = &cancelled;
  EXPECT_THROW(sweep(*model, config(), train_rows, dev_rows, 600, callbacks), Error);
}

TEST(Sweep, SettingsThatDivergeAreLastNotTheEnd) {
  const auto model = load_model(test::golden("train") / "llama" / "model");
  const auto train_rows = rows(32, 1), dev_rows = rows(8, 2);
  TrainConfig c = config();
  c.learning_rate = 0.2;
  c.lora.alpha = 4000;
  c.optimizer.clip = 0;
  try {
    const SweepResult result = sweep(*model, c, train_rows, dev_rows, 600);
    EXPECT_TRUE(result.trials.front().dev_loss);
    EXPECT_LT(result.trials.front().learning_rate, 0.8);
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("diverged"));
  }
}

}  // namespace
}  // namespace thimble
