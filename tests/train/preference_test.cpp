#include "train/preference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "train/oracle_case.h"
#include "train/trainer.h"

namespace thimble {
namespace {

const nlohmann::json& golden() {
  static const auto json = nlohmann::json::parse(read_file(test::golden("train") / "preference" / "cases.json"));
  return json;
}

PreferenceConfig config_of(const nlohmann::json& c) {
  const std::map<std::string, PreferenceLoss> kinds = {{"dpo", PreferenceLoss::kDpo},
                                                       {"ipo", PreferenceLoss::kIpo},
                                                       {"orpo", PreferenceLoss::kOrpo},
                                                       {"kto", PreferenceLoss::kKto}};
  PreferenceConfig out;
  out.loss = kinds.at(c.at("loss"));
  out.beta = c.value("beta", out.beta);
  out.label_smoothing = c.value("label_smoothing", 0.0);
  out.sft_weight = c.value("sft_weight", 0.0);
  out.lambda = c.value("lambda", out.lambda);
  out.desirable_weight = c.value("desirable_weight", 1.0);
  out.undesirable_weight = c.value("undesirable_weight", 1.0);
  return out;
}

std::vector<TrainRow> golden_rows() {
  std::vector<TrainRow> rows;
  for (const auto& row : golden().at("rows")) {
    rows.push_back({row.at("tokens"), row.at("trained"), static_cast<int>(rows.size() / 2 + 1), {}});
    rows.back().wanted = rows.size() % 2 == 1;
  }
  return rows;
}

class PreferenceOracle : public testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(PreferenceOracle, LossAndGradientsMatchPyTorch) {
  const auto& [name, budget] = GetParam();  // micro-batches of one pair, and one of all rows
  const auto& expected = golden().at("cases").at(name);
  const auto c = test::load_case(test::golden("train") / "llama");
  const auto rows = golden_rows();
  Preference preference(config_of(expected), rows, budget);
  TrainOps base(*c.model, nullptr, {.precision = GemmPrecision::kF32});
  ASSERT_TRUE(preference.measure_reference(base));

  TrainOps ops(*c.model, c.lora.get(), {.precision = GemmPrecision::kF32});
  const auto plan = pack_in_order(rows, budget, config_of(expected).pairs() ? 2 : 1);
  EXPECT_EQ(plan.size() == 1, budget > 1);
  preference.begin(ops, plan);
  double loss = 0;
  for (const MicroBatch& micro : plan) {
    const TrainBatch batch = make_batch(rows, micro);
    loss += ops.loss_and_gradients(batch, preference.loss_of(batch));
  }
  EXPECT_NEAR(loss / expected.at("expected_loss").get<double>(), 1, 1e-5);
  const PreferenceMeasure measured = preference.measured();
  EXPECT_DOUBLE_EQ(measured.loss, loss);
  EXPECT_DOUBLE_EQ(measured.accuracy, expected.at("accuracy").get<double>());
  EXPECT_NEAR(measured.margin, expected.at("margin").get<double>(), 1e-5);
  const PreferenceMeasure evaluated = preference.evaluate(ops);
  EXPECT_NEAR(evaluated.loss, loss, 1e-6);
  EXPECT_DOUBLE_EQ(evaluated.accuracy, measured.accuracy);

  const auto gradients = read_safetensors(test::golden("train") / "preference" / "gradients.safetensors");
  int compared = 0;
  for (const auto& parameter : c.lora->parameters()) {
    const auto found = gradients.find(name + "." + parameter.name);
    if (found == gradients.end()) continue;
    ++compared;
    const double difference = test::relative_difference(parameter.gradients, test::floats(found->second));
    EXPECT_LE(difference, 1e-5) << parameter.name;
    std::printf("  largest relative difference of a gradient: %.3g\n", difference);
  }
  EXPECT_EQ(compared, 3);
}

INSTANTIATE_TEST_SUITE_P(Cases, PreferenceOracle,
                         testing::Combine(testing::Values("dpo", "dpo_smoothed", "ipo", "orpo", "kto"),
                                          testing::Values(1, 1000)));

TEST(Preference, TheReferenceIsThatOfPyTorch) {
  const auto c = test::load_case(test::golden("train") / "llama");
  const auto rows = golden_rows();
  TrainOps base(*c.model, nullptr, {.precision = GemmPrecision::kF32});
  const auto sums = answer_log_probs(base, rows, 40);
  const auto expected = golden().at("reference").get<std::vector<double>>();
  for (size_t i = 0; i < sums.size(); ++i) EXPECT_NEAR(sums[i], expected[i], 1e-4) << i;
}

// The slopes are what the losses' differences say they are.
TEST(PreferenceLoss, SlopesAreDerivatives) {
  constexpr double kStep = 1e-5;
  for (const auto& [name, c] : golden().at("cases").items()) {
    const PreferenceConfig config = config_of(c);
    const AnswerScore right{-7.5, -8.25, 5}, wrong{-6, -4.5, 3};
    if (!config.pairs()) {
      for (const bool wanted : {true, false}) {
        const auto at = [&](double shift) {
          return answer_loss(config, {right.log_prob + shift, right.reference, 5}, wanted, 0.4).loss;
        };
        EXPECT_NEAR(answer_loss(config, right, wanted, 0.4).slope, (at(kStep) - at(-kStep)) / (2 * kStep), 1e-8);
      }
      continue;
    }
    const auto at = [&](double chosen, double rejected) {
      return pair_loss(config, {right.log_prob + chosen, right.reference, 5},
                       {wrong.log_prob + rejected, wrong.reference, 3})
          .loss;
    };
    const PairLoss loss = pair_loss(config, right, wrong);
    EXPECT_NEAR(loss.chosen_slope, (at(kStep, 0) - at(-kStep, 0)) / (2 * kStep), 1e-8) << name;
    EXPECT_NEAR(loss.rejected_slope, (at(0, kStep) - at(0, -kStep)) / (2 * kStep), 1e-8) << name;
  }
}

TEST(PreferenceLoss, StaysFiniteWhereAnswersAreCertainOrHopeless) {
  for (const auto& [name, c] : golden().at("cases").items()) {
    const PreferenceConfig config = config_of(c);
    for (const double log_prob : {0.0, -1e-9, -5000.0})
      for (const double other : {0.0, -5000.0}) {
        const PairLoss pair = pair_loss(config, {log_prob, -1, 4}, {other, -1, 4});
        const AnswerLoss answer = answer_loss(config, {log_prob, other, 4}, true, 0);
        for (const double value : {pair.loss, pair.chosen_slope, pair.rejected_slope, answer.loss, answer.slope})
          EXPECT_TRUE(std::isfinite(value)) << name << " " << log_prob << " " << other;
      }
  }
}

// Right answers are made of other tokens than wrong ones.
std::vector<TrainRow> pairs(int count, uint64_t seed) {
  std::vector<TrainRow> rows;
  Random random(seed);
  for (int i = 0; i < count; ++i) {
    const auto a = static_cast<int32_t>(random.below(40)), b = static_cast<int32_t>(40 + random.below(40));
    const std::vector<int32_t> prompt = {7, 8, 9, 10, a, b};
    for (const bool wanted : {true, false}) {
      TrainRow row{prompt, std::vector<uint8_t>(prompt.size(), 0), i + 1, {}};
      row.wanted = wanted;
      for (const int32_t token : wanted ? std::vector{11, 12, 13} : std::vector{21, 22, 23, 24}) {
        row.tokens.push_back(token);
        row.trained.push_back(1);
      }
      rows.push_back(row);
    }
  }
  return rows;
}

TrainConfig small_config(PreferenceLoss loss) {
  TrainConfig config;
  config.lora.rank = 4;
  config.lora.alpha = 8;
  config.learning_rate = 5e-3;
  config.epochs = 4;
  config.batch_rows = 8;
  config.token_budget = 80;
  config.evaluations = 2;
  config.precision = GemmPrecision::kF32;
  config.preference = PreferenceConfig{.loss = loss};
  return config;
}

std::shared_ptr<const Model> tiny() {
  static const auto model = load_model(test::golden("train") / "llama" / "model");
  return model;
}

TEST(Preference, LearnsToTellAnswersApart) {
  for (const PreferenceLoss loss :
       {PreferenceLoss::kDpo, PreferenceLoss::kIpo, PreferenceLoss::kOrpo, PreferenceLoss::kKto}) {
    const TrainResult result = train(*tiny(), small_config(loss), pairs(32, 1), pairs(8, 2));
    const HistoryPoint &first = result.history.front(), &last = result.history.back();
    ASSERT_TRUE(first.dev_loss && first.dev_accuracy && last.dev_accuracy && last.dev_margin);
    EXPECT_LT(*last.dev_loss, *first.dev_loss) << static_cast<int>(loss);
    EXPECT_GE(*last.dev_accuracy, 0.9) << static_cast<int>(loss);
    EXPECT_GT(*last.dev_margin, *first.dev_margin);
    EXPECT_EQ(result.steps, loss == PreferenceLoss::kKto ? 32 : 16);  // eight pairs a step, or eight answers
  }
}

TEST(Preference, BeginsWhereTheModelIsItsOwnReference) {
  TrainConfig config = small_config(PreferenceLoss::kDpo);
  config.epochs = 0.25;
  const TrainResult result = train(*tiny(), config, pairs(8, 1), pairs(4, 2));
  EXPECT_NEAR(*result.history.front().dev_loss, std::log(2.0), 1e-6);
  EXPECT_NEAR(*result.history.front().dev_margin, 0, 1e-6);
}

TEST(Preference, AnInterruptedRunGoesOnToTheBit) {
  std::string folder = (std::filesystem::temp_directory_path() / "thimble_preference_XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const auto rows = pairs(16, 1), dev = pairs(4, 2);
  for (const PreferenceLoss loss : {PreferenceLoss::kDpo, PreferenceLoss::kKto}) {
    TrainConfig config = small_config(loss);
    const TrainResult whole = train(*tiny(), config, rows, dev);
    config.checkpoint = std::filesystem::path(folder) / "checkpoint.safetensors";
    std::atomic<bool> cancelled{false};
    TrainCallbacks callbacks;
    callbacks.cancelled = &cancelled;
    callbacks.on_step = [&](const HistoryPoint& point) { cancelled = point.step == 3; };
    EXPECT_TRUE(train(*tiny(), config, rows, dev, callbacks).cancelled);
    const TrainResult again = train(*tiny(), config, rows, dev);
    EXPECT_EQ(again.steps, whole.steps);
    EXPECT_TRUE(std::ranges::equal(again.trained.lora->values(), whole.trained.lora->values()));
    config.preference->beta = 0.2;
    EXPECT_THROW(train(*tiny(), config, rows, dev), Error) << "a checkpoint of another objective";
    std::filesystem::remove(config.checkpoint);
  }
  std::filesystem::remove_all(folder);
}

TEST(Preference, PairsStayTogetherAndShareTheirPrompt) {
  const auto rows = pairs(9, 3);
  size_t seen = 0;
  for (const StepPlan& step : pack_epoch(rows, 4, 30, 1, 0, 2))
    for (const MicroBatch& micro : step.micro_batches) {
      for (const int row : micro.rows)
        EXPECT_THAT(micro.rows, testing::Contains(row % 2 == 0 ? row + 1 : row - 1)) << "its partner is elsewhere";
      seen += micro.rows.size();
      int64_t separate = 0;
      for (const int row : micro.rows) separate += computed_tokens(rows[static_cast<size_t>(row)]);
      EXPECT_LE(micro.tokens, separate - 5 * static_cast<int64_t>(micro.rows.size()) / 2);
    }
  EXPECT_EQ(seen, rows.size());
  EXPECT_THROW(pack_epoch(std::span(rows).first(3), 4, 30, 1, 0, 2), Error);
}

TEST(Preference, RefusesPairsThatAreNone) {
  auto rows = pairs(4, 1);
  std::swap(rows[2], rows[3]);
  EXPECT_THROW(train(*tiny(), small_config(PreferenceLoss::kDpo), rows, {}), Error);
  rows.pop_back();
  EXPECT_THROW(train(*tiny(), small_config(PreferenceLoss::kDpo), rows, {}), Error);
}

}  // namespace
}  // namespace thimble
