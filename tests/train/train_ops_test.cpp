#include "train/train_ops.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "train/oracle_case.h"

namespace thimble {
namespace {

constexpr GemmPrecision kF32 = GemmPrecision::kF32;

std::vector<float> copy_of(std::span<const float> values) { return {values.begin(), values.end()}; }

std::vector<float> gradients(const test::OracleCase& c, TrainOps& ops, const TrainBatch& batch, double normalizer = 0) {
  std::fill(c.lora->gradients().begin(), c.lora->gradients().end(), 0.0f);
  ops.loss_and_gradients(batch, normalizer > 0 ? normalizer : batch.weight(), 3);
  return copy_of(c.lora->gradients());
}

class TrainOpsOf : public testing::TestWithParam<const char*> {};

TEST_P(TrainOpsOf, RecomputingGivesIdenticalGradients) {
  const auto c = test::load_case(test::golden("train") / GetParam());
  for (const GemmPrecision precision : {kF32, GemmPrecision::kBF16}) {
    TrainOps keeping(*c.model, c.lora.get(), {.precision = precision, .recomputed_blocks = 0});
    TrainOps recomputing(*c.model, c.lora.get(), {.precision = precision, .recomputed_blocks = kAllBlocks});
    EXPECT_EQ(gradients(c, keeping, c.batch()), gradients(c, recomputing, c.batch()));
  }
}

TEST_P(TrainOpsOf, ASecondBatchOverUsedBuffersGivesIdenticalGradients) {
  const auto c = test::load_case(test::golden("train") / GetParam());
  TrainOps ops(*c.model, c.lora.get(), {.precision = kF32});
  const auto first = gradients(c, ops, c.batch());
  const size_t bytes = ops.buffer_bytes();
  EXPECT_EQ(gradients(c, ops, c.batch()), first);
  ops.loss_and_gradients(make_batch(c.rows, {{0}, 0}), 1);  // a shorter one too
  EXPECT_EQ(gradients(c, ops, c.batch()), first);
  EXPECT_EQ(ops.buffer_bytes(), bytes) << "a later batch took new memory";
  EXPECT_NEAR(ops.loss(c.batch(), c.batch().weight()), c.loss, 1e-4);
}

TEST_P(TrainOpsOf, NoiseOnEmbeddingsIsDrawnByTheStepAndOffInEvaluation) {
  const auto c = test::load_case(test::golden("train") / GetParam());
  const TrainBatch batch = c.batch();
  TrainOps plain(*c.model, c.lora.get(), {.precision = kF32});
  TrainOps noisy(*c.model, c.lora.get(), {.precision = kF32, .neftune = 5});
  TrainOps recomputing(*c.model, c.lora.get(), {.precision = kF32, .recomputed_blocks = kAllBlocks, .neftune = 5});
  EXPECT_EQ(noisy.loss(batch, 1), plain.loss(batch, 1));
  const auto drawn = gradients(c, noisy, batch);
  EXPECT_NE(drawn, gradients(c, plain, batch));
  EXPECT_EQ(drawn, gradients(c, noisy, batch)) << "the same step draws the same";
  EXPECT_EQ(drawn, gradients(c, recomputing, batch));
  EXPECT_NE(noisy.loss_and_gradients(batch, 1, 4), noisy.loss_and_gradients(batch, 1, 5));
  const double exact = plain.loss_and_gradients(batch, 1, 4);
  TrainOps slightly(*c.model, c.lora.get(), {.precision = kF32, .neftune = 5e-4f});
  EXPECT_NEAR(slightly.loss_and_gradients(batch, 1, 4), exact, 1e-2);  // as little as it is said to be
  EXPECT_GT(std::abs(noisy.loss_and_gradients(batch, 1, 4) - exact), 1e-3);
}

TEST_P(TrainOpsOf, RowsOfOneBatchDoNotSeeEachOther) {
  const auto c = test::load_case(test::golden("train") / GetParam());
  TrainOps ops(*c.model, c.lora.get(), {.precision = kF32});
  const double all = ops.loss(c.batch(), 1);
  double alone = 0;
  for (size_t i = 0; i < c.rows.size(); ++i) alone += ops.loss(make_batch(c.rows, {{static_cast<int>(i)}, 0}), 1);
  EXPECT_NEAR(all, alone, 1e-4 * all);
}

// Two rows with one beginning, once as they are and once with the beginning standing once.
TEST_P(TrainOpsOf, ASharedPrefixGivesTheGradientsOfSeparateRows) {
  const auto c = test::load_case(test::golden("train") / GetParam());
  const std::vector<int32_t> prefix = {5, 9, 17, 3, 44}, left = {7, 8, 50, 31}, right = {21, 2, 2, 60, 13, 6};
  const auto add = [](TrainBatch& batch, const std::vector<int32_t>& tokens, bool trained) {
    for (size_t i = 0; i + 1 < tokens.size() + 1; ++i) {
      batch.tokens.push_back(tokens[i]);
      batch.targets.push_back(i + 1 < tokens.size() ? tokens[i + 1] : 0);
      batch.weights.push_back(trained && i + 1 < tokens.size() ? 1.0f : 0.0f);
    }
  };
  TrainBatch rows;
  for (const auto& branch : {left, right}) {
    const auto first = static_cast<int32_t>(rows.tokens.size());
    add(rows, prefix, false);
    add(rows, branch, true);
    rows.plan.segments.push_back({.query_first = first,
                                  .query_count = static_cast<int32_t>(prefix.size() + branch.size()),
                                  .key_first = first,
                                  .position = 0,
                                  .ancestors = {}});
  }
  TrainBatch tree;
  add(tree, prefix, false);
  tree.plan.segments.push_back({.query_first = 0, .query_count = 5, .key_first = 0, .position = 0, .ancestors = {}});
  for (const auto& branch : {left, right}) {
    const auto first = static_cast<int32_t>(tree.tokens.size());
    add(tree, branch, true);
    tree.plan.segments.push_back({.query_first = first,
                                  .query_count = static_cast<int32_t>(branch.size()),
                                  .key_first = first,
                                  .position = 5,
                                  .ancestors = {{0, 5}}});
  }
  TrainOps ops(*c.model, c.lora.get(), {.precision = kF32});
  EXPECT_NEAR(ops.loss(tree, 1), ops.loss(rows, 1), 1e-4);
  const auto expected = gradients(c, ops, rows);
  EXPECT_LT(test::relative_difference(gradients(c, ops, tree), expected), 1e-5);
}

// Random trees of rows, as the packer lays them out, against the same rows one by one.
TEST_P(TrainOpsOf, RandomTreesGiveTheGradientsOfSeparateRows) {
  const auto c = test::load_case(test::golden("train") / GetParam());
  const auto vocabulary = static_cast<int64_t>(c.model->config.vocab);
  Random random(11);
  const auto text = [&](int64_t least, int64_t most) {
    std::vector<int32_t> tokens(
        static_cast<size_t>(least + static_cast<int64_t>(random.uniform() * static_cast<double>(most - least + 1))));
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.uniform() * static_cast<double>(vocabulary));
    return tokens;
  };
  for (int trial = 0; trial < 6; ++trial) {
    // Beginnings of beginnings, some of them too short to be shared.
    std::vector<std::vector<int32_t>> beginnings = {{}};
    std::vector<TrainRow> rows;
    std::vector<int> chosen;
    for (int i = 0; i < 7; ++i) {
      auto tokens = beginnings[static_cast<size_t>(random.uniform() * static_cast<double>(beginnings.size()))];
      for (const int32_t token : text(1, 9)) tokens.push_back(token);
      beginnings.push_back(tokens);
      TrainRow row;
      row.trained.assign(tokens.size(), 0);
      for (const int32_t token : text(2, 5)) tokens.push_back(token), row.trained.push_back(1);
      for (size_t t = 0; t < tokens.size(); ++t) row.weights.push_back(0.5f + static_cast<float>(t % 3));
      row.tokens = std::move(tokens);
      rows.push_back(std::move(row));
      chosen.push_back(i);
    }
    rows.push_back(rows.front());  // the same row twice
    chosen.push_back(7);
    const TrainBatch tree = make_batch(rows, {chosen, 0});
    int64_t separate = 0;
    for (const TrainRow& row : rows) separate += computed_tokens(row);
    EXPECT_LT(tree.size(), separate);

    TrainOps ops(*c.model, c.lora.get(), {.precision = kF32});
    const auto together = gradients(c, ops, tree);
    std::fill(c.lora->gradients().begin(), c.lora->gradients().end(), 0.0f);
    double loss = 0;
    for (const int i : chosen) loss += ops.loss_and_gradients(make_batch(rows, {{i}, 0}), tree.weight(), 3);
    EXPECT_NEAR(ops.loss(tree, tree.weight()), loss, 1e-5 * loss);
    EXPECT_LE(test::relative_difference(together, copy_of(c.lora->gradients())), 1e-5) << "trial " << trial;
  }
}

TEST_P(TrainOpsOf, DropoutGradientsMatchDifferencesOfTheLoss) {
  const auto c = test::load_case(test::golden("train") / GetParam());
  LoraConfig config = c.lora->config();
  config.dropout = 0.3f;
  const Lora lora(*c.model, config, 1);
  std::copy(c.lora->values().begin(), c.lora->values().end(), lora.values().begin());
  TrainOps ops(*c.model, &lora, {.precision = kF32, .recomputed_blocks = 0, .dropout_seed = 5});
  TrainOps recomputing(*c.model, &lora, {.precision = kF32, .recomputed_blocks = kAllBlocks, .dropout_seed = 5});
  const TrainBatch batch = c.batch();
  const auto loss_at = [&](TrainOps& with, uint64_t step) {
    std::fill(lora.gradients().begin(), lora.gradients().end(), 0.0f);
    return with.loss_and_gradients(batch, batch.weight(), step);
  };
  const double base = loss_at(ops, 1);
  const auto gradient = copy_of(lora.gradients());
  EXPECT_NE(base, loss_at(ops, 2));
  EXPECT_EQ(base, loss_at(recomputing, 1));
  EXPECT_EQ(gradient, copy_of(lora.gradients()));

  // Along the gradient itself, where the difference stands out from rounding.
  double square = 0;
  for (const float g : gradient) square += static_cast<double>(g) * g;
  const double h = 1e-2 / std::sqrt(square);
  const auto values = copy_of(lora.values());
  const auto moved = [&](double by) {
    for (size_t i = 0; i < values.size(); ++i) lora.values()[i] = values[i] + static_cast<float>(by) * gradient[i];
    return loss_at(ops, 1);
  };
  EXPECT_NEAR((moved(h) - moved(-h)) / (2 * h), square, 0.01 * square);
}

INSTANTIATE_TEST_SUITE_P(Families, TrainOpsOf, testing::Values("llama", "llama_bias", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TrainOps, LossesAreNormalisedOverTheOptimizerStep) {
  const auto c = test::load_case(test::golden("train") / "llama");
  std::vector<TrainRow> rows;
  Random random(4);
  for (int i = 0; i < 16; ++i) {
    TrainRow row;
    const int length = 4 + static_cast<int>(random.below(20));
    for (int t = 0; t < length; ++t) {
      row.tokens.push_back(static_cast<int32_t>(random.below(300)));
      row.trained.push_back(t > length / 2 ? 1 : 0);
    }
    rows.push_back(row);
  }
  MicroBatch whole;
  std::vector<MicroBatch> parts(4);
  double weight = 0;
  for (int i = 0; i < 16; ++i) {
    whole.rows.push_back(i);
    parts[static_cast<size_t>(i / 4)].rows.push_back(i);
    weight += static_cast<double>(trained_tokens(rows[static_cast<size_t>(i)]));
  }
  TrainOps ops(*c.model, c.lora.get(), {.precision = kF32});
  const auto at_once = gradients(c, ops, make_batch(rows, whole), weight);
  const double loss = ops.loss(make_batch(rows, whole), weight);
  std::fill(c.lora->gradients().begin(), c.lora->gradients().end(), 0.0f);
  double sum = 0;
  for (const MicroBatch& part : parts) sum += ops.loss_and_gradients(make_batch(rows, part), weight);
  EXPECT_NEAR(sum, loss, 1e-5);
  EXPECT_LT(test::relative_difference(c.lora->gradients(), at_once), 1e-5);
}

TEST(TrainOps, NothingFlowsBelowTheLowestAdaptedLayer) {
  auto c = test::load_case(test::golden("train") / "llama");
  LoraConfig config = c.lora->config();
  config.targets = {"model.layers.1.mlp.down_proj"};
  const Lora top(*c.model, config, 1);
  TrainOps all(*c.model, c.lora.get(), {.precision = kF32});
  TrainOps few(*c.model, &top, {.precision = kF32});
  const TrainBatch batch = c.batch();
  all.loss_and_gradients(batch, batch.weight());
  few.loss_and_gradients(batch, batch.weight());
  EXPECT_LT(few.buffer_bytes(), all.buffer_bytes());
  double norm = 0;
  for (const float g : top.gradients()) norm += static_cast<double>(g) * g;
  EXPECT_GT(norm, 0);  // b is zero, so this is b's gradient
}

TEST(TrainOps, WithoutAnAdapterTheLossIsTheBaseModels) {
  auto c = test::load_case(test::golden("train") / "llama");
  const Lora fresh(*c.model, c.lora->config(), 9);  // b is zero
  TrainOps base(*c.model, nullptr, {.precision = kF32});
  TrainOps started(*c.model, &fresh, {.precision = kF32});
  const TrainBatch batch = c.batch();
  EXPECT_NEAR(base.loss(batch, 1), started.loss(batch, 1), 1e-4);
}

TEST(TrainOps, RefusesTokensBeyondTheVocabulary) {
  const auto c = test::load_case(test::golden("train") / "llama");
  TrainOps ops(*c.model, c.lora.get(), {.precision = kF32});
  TrainBatch batch = c.batch();
  batch.tokens[3] = 300;
  EXPECT_THROW(ops.loss_and_gradients(batch, 1), Error);
  batch = c.batch();
  batch.targets.back() = -1;
  EXPECT_THROW(ops.loss_and_gradients(batch, 1), Error);
  EXPECT_NEAR(ops.loss(c.batch(), c.batch().weight()), c.loss, 1e-4);  // and goes on as before
}

}  // namespace
}  // namespace thimble
