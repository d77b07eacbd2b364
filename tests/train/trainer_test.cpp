#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/random.h"
#include "data/job.h"
#include "tensor/quantize.h"
#include "train/checkpoint.h"
#include "train/revisits.h"
#include "train/oracle_case.h"

namespace thimble {
namespace {

std::shared_ptr<const Model> tiny() {
  static const auto model = load_model(test::golden("train") / "llama" / "model");
  return model;
}

std::vector<TrainRow> some_rows(int count, uint64_t seed) {
  std::vector<TrainRow> rows;
  Random random(seed);
  for (int i = 0; i < count; ++i) {
    TrainRow row;
    row.row = i + 1;
    const int length = 6 + static_cast<int>(random.below(12));
    for (int t = 0; t < length; ++t) {
      // The answer is a rule of the question: each of its tokens repeats the one three before.
      row.tokens.push_back(t < 3 ? static_cast<int32_t>(random.below(40)) : row.tokens[static_cast<size_t>(t - 3)]);
      row.trained.push_back(t >= 3 ? 1 : 0);
    }
    rows.push_back(row);
  }
  return rows;
}

TrainConfig small_config() {
  TrainConfig config;
  config.lora.rank = 4;
  config.lora.alpha = 8;
  config.learning_rate = 1e-2;
  config.epochs = 6;
  config.batch_rows = 8;
  config.token_budget = 60;
  config.evaluations = 4;
  config.precision = GemmPrecision::kF32;
  return config;
}

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "thimble_train_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

std::vector<float> values_of(const TrainResult& result) {
  return copy_values(result.trained.parameters());
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Trainer, LearnsAndKeepsTheBestAdapter) {
  const auto rows = some_rows(40, 1), dev = some_rows(10, 2);
  int progressed = 0;
  TrainCallbacks callbacks;
  callbacks.progress = [&](const Progress& p) {
    ++progressed;
    EXPECT_LE(p.done, p.total * 1.05);
    EXPECT_THAT(p.detail, testing::HasSubstr("step "));
  };
  const TrainResult result = train(*tiny(), small_config(), rows, dev, callbacks);
  EXPECT_EQ(result.planned_steps, 30);
  EXPECT_EQ(result.steps, 30);
  EXPECT_GE(progressed, 30);
  ASSERT_EQ(result.history.size(), 31u);
  ASSERT_TRUE(result.history.front().dev_loss);
  double lowest = std::numeric_limits<double>::infinity();
  int evaluated = 0;
  for (const auto& point : result.history) {
    if (!point.dev_loss) continue;
    ++evaluated;
    lowest = std::min(lowest, *point.dev_loss);
  }
  EXPECT_EQ(evaluated, 5);
  EXPECT_EQ(result.best_dev_loss, lowest);
  EXPECT_LT(lowest, 0.95 * *result.history.front().dev_loss);
  EXPECT_LT(result.history.back().loss, 0.9 * result.history[1].loss);
  // What is handed out is the best, not the last.
  EXPECT_NEAR(evaluate_loss(*tiny(), result.trained, dev, GemmPrecision::kF32, 60), lowest, 1e-6);
  int64_t tokens = 0;
  for (const auto& row : rows) tokens += computed_tokens(row);
  EXPECT_EQ(result.tokens, 6 * tokens);
}

TEST(Trainer, TheSameRunGivesTheSameAdapterToTheBit) {
  const auto rows = some_rows(20, 1);
  EXPECT_EQ(values_of(train(*tiny(), small_config(), rows, {})), values_of(train(*tiny(), small_config(), rows, {})));
  TrainConfig other = small_config();
  other.seed = 2;
  EXPECT_NE(values_of(train(*tiny(), small_config(), rows, {})), values_of(train(*tiny(), other, rows, {})));
}

// What a run may train and how, each to be interrupted.
TrainConfig config_of(const std::string& what) {
  TrainConfig config = small_config();
  config.lora.dropout = 0.1f;
  config.lora.dora = what == "dora";
  config.lora.plus = what == "lora_plus" ? 4.0f : 1.0f;
  if (what == "revisits") config.revisit = 0.3, config.epochs = 12;
  if (what == "lora_8bit") config.lora.rank = 64;  // tensors large enough for 8 bits
  config.optimizer.eight_bit = what.ends_with("8bit") || what == "no_master";
  config.weights.train = what.starts_with("full") || what == "no_master";
  config.weights.master = what != "no_master";
  if (config.weights.train) config.learning_rate = 3e-3;
  if (what == "full_bf16" || what == "no_master") config.precision = GemmPrecision::kBF16;
  return config;
}

class InterruptedRun : public testing::TestWithParam<const char*> {};

TEST_P(InterruptedRun, GoesOnToTheBit) {
  const auto rows = some_rows(40, 1), dev = some_rows(8, 2);
  TrainConfig config = config_of(GetParam());
  const TrainResult whole = train(*tiny(), config, rows, dev);

  const Folder folder;
  config.checkpoint = folder.path / "checkpoint.safetensors";
  std::atomic<bool> cancel{false};
  TrainCallbacks callbacks;
  callbacks.cancelled = &cancel;
  callbacks.on_step = [&](const HistoryPoint& point) { cancel = point.step == 11; };
  const TrainResult first = train(*tiny(), config, rows, dev, callbacks);
  EXPECT_TRUE(first.cancelled);
  EXPECT_EQ(first.steps, 11);
  const TrainResult second = train(*tiny(), config, rows, dev);
  EXPECT_FALSE(second.cancelled);
  EXPECT_EQ(values_of(second), values_of(whole));
  EXPECT_EQ(second.best_step, whole.best_step);
  ASSERT_EQ(second.history.size(), whole.history.size());
  for (size_t i = 0; i < whole.history.size(); ++i) {
    EXPECT_EQ(second.history[i].loss, whole.history[i].loss);
    EXPECT_EQ(second.history[i].dev_loss, whole.history[i].dev_loss);
  }
}

INSTANTIATE_TEST_SUITE_P(Trainer, InterruptedRun,
                         testing::Values("lora", "lora_plus", "revisits", "lora_8bit", "dora", "full", "full_8bit",
                                         "full_bf16", "no_master"),
                         [](const auto& info) { return std::string(info.param); });

// Rows that no rule gives the answers of stay hard, and epochs after the first come back to them.
TEST(Trainer, VisitsAgainWhatIsHard) {
  std::vector<TrainRow> rows = some_rows(64, 1);
  Random random(5);
  for (size_t i = 0; i < rows.size(); i += 8)
    for (size_t t = 3; t < rows[i].tokens.size(); ++t) rows[i].tokens[t] = static_cast<int32_t>(random.below(40));
  TrainConfig config = small_config();
  config.epochs = 1 + 56;
  config.revisit = 0.125;
  EXPECT_EQ(planned_steps(config, rows.size()), 8 + 56);
  EXPECT_EQ(epochs_of(config, rows.size(), 8 + 56), 57);
  const TrainResult result = train(*tiny(), config, rows, {});
  const auto loss_of = [&](const TrainResult& of, size_t from, size_t step) {
    std::vector<TrainRow> some;
    for (size_t i = from; i < rows.size(); i += step) some.push_back(rows[i]);
    return evaluate_loss(*tiny(), of.trained, some, GemmPrecision::kF32, 60);
  };
  config.revisit = 1;
  config.epochs = 8;  // as many steps
  const TrainResult plain = train(*tiny(), config, rows, {});
  EXPECT_EQ(plain.steps, result.steps);
  EXPECT_LT(loss_of(result, 0, 8), loss_of(plain, 0, 8));
}

TEST(Revisits, GoByTheLossAgainstThatOfItsTime) {
  Revisits revisits(6);
  // Everything is hard at first; row 1 a little less than row 0. Later, row 3 is hard among easy ones.
  revisits.add_step(std::vector<Revisits::RowLoss>{{0, 20}, {1, 10}});
  for (int i = 0; i < 200; ++i) revisits.add_step(std::vector<Revisits::RowLoss>{{2, 1}, {3, 3}, {4, 0.5}, {5, 1.5}});
  EXPECT_EQ(revisits.of_epoch(1, 2), (std::vector<int>{0, 3}));
  // Within an epoch what is learned changes nothing, also not over a checkpoint.
  revisits.add_step(std::vector<Revisits::RowLoss>{{0, 0.1}, {3, 0.1}});
  Revisits again(6);
  again.read_json(revisits.to_json());
  EXPECT_EQ(again.of_epoch(1, 2), (std::vector<int>{0, 3}));
  EXPECT_EQ(again.of_epoch(2, 2), revisits.of_epoch(2, 2));
  EXPECT_EQ(again.of_epoch(2, 2), (std::vector<int>{1, 5}));
  Revisits other(5);
  EXPECT_THROW(other.read_json(revisits.to_json()), Error);
}

TEST(Revisits, ARowsLossIsThatOfItsWorstToken) {
  TrainBatch batch;
  batch.weights = {0, 1, 0.5f, 0, 2};
  batch.rows = {7, 7, 7, 9, 9};
  batch.tokens.resize(5);
  std::vector<Revisits::RowLoss> rows;
  Revisits::collect(batch, std::vector<float>{1, 4, 0.25f}, rows);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].row, 7);
  EXPECT_EQ(rows[0].loss, 2.0);
  EXPECT_EQ(rows[1].row, 9);
  EXPECT_EQ(rows[1].loss, 0.5);
}

TEST(Trainer, LessMemoryForTheOptimizerLearnsNearlyTheSame) {
  const auto rows = some_rows(60, 1), dev = some_rows(12, 2);
  const auto reached = [&](const char* what) {
    TrainConfig config = config_of(what);
    config.lora.dropout = 0;
    const TrainResult result = train(*tiny(), config, rows, dev);
    return std::pair(*result.history.front().dev_loss, *result.best_dev_loss);
  };
  const auto [start, full] = reached("full");
  EXPECT_LT(full, 0.75 * start);
  for (const char* what : {"full_bf16", "full_8bit", "no_master"})
    EXPECT_NEAR(reached(what).second, full, 0.05 * (start - full)) << what;
}

TEST(Trainer, LoraPlusMovesBFaster) {
  const auto rows = some_rows(8, 1);
  const auto b_of = [&](const char* what) {
    TrainConfig config = config_of(what);
    config.lora.dropout = 0;
    config.epochs = 1;
    config.warmup_share = 0;
    config.optimizer.weight_decay = 0;
    return train(*tiny(), config, rows, {}).trained.lora->layers().front().b[0];
  };
  EXPECT_NEAR(b_of("lora_plus") / b_of("lora"), 4, 0.01);  // of a first step: Adam moves by the learning rate
}

TEST(Weights, AreWrittenIntoTheBasesFile) {
  const auto path = test::golden("train") / "llama" / "model";
  const Weights weights(*tiny(), GemmPrecision::kBF16);
  for (const TrainedTensor& tensor : weights.tensors())
    for (float& v : tensor.values) v += 1;
  round_values(weights.parameters());
  const auto changed = build_model(with_weights(open_model(path), weights));
  const Buffer<float> before = dequantize(tiny()->params.front().value),
                      after = dequantize(changed->params.front().value), head = dequantize(changed->head->weight);
  for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(after[i], before[i] + 1, 1e-2);
  EXPECT_TRUE(std::equal(after.begin(), after.end(), head.begin()));  // tied
}

TEST(Trainer, ACheckpointOfAnotherRunIsRefusedByName) {
  const auto rows = some_rows(10, 1);
  const Folder folder;
  TrainConfig config = small_config();
  config.epochs = 1;
  config.checkpoint = folder.path / "checkpoint.safetensors";
  train(*tiny(), config, rows, {});
  TrainConfig other = config;
  other.learning_rate = 5e-3;
  EXPECT_THAT(error_of([&] { train(*tiny(), other, rows, {}); }), testing::HasSubstr("another learning rate"));
  EXPECT_THAT(error_of([&] { train(*tiny(), config, some_rows(10, 3), {}); }),
              testing::HasSubstr("another training rows"));
  std::filesystem::resize_file(config.checkpoint, std::filesystem::file_size(config.checkpoint) - 5);
  EXPECT_NE(error_of([&] { train(*tiny(), config, rows, {}); }), "no error");
}

TEST(Trainer, TheTasksOwnMetricChoosesTheBest) {
  const auto rows = some_rows(40, 1), dev = some_rows(8, 2);
  int calls = 0;
  TrainCallbacks callbacks;
  callbacks.metric = [&](const Trainable&, int64_t) { return ++calls == 3 ? 0.9 : 0.1; };
  const TrainResult result = train(*tiny(), small_config(), rows, dev, callbacks);
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(result.best_metric, 0.9);
  EXPECT_EQ(result.best_step, 15);  // before the first step, after 7 (of 30), after 15
}

TEST(Trainer, OfEqualMetricsTheLowerDevLossIsBetterAndStepsWithoutOneCompareByTheLoss) {
  const auto rows = some_rows(40, 1), dev = some_rows(8, 2);
  TrainCallbacks callbacks;
  callbacks.metric = [](const Trainable&, int64_t step) {
    return step == 0 ? std::nullopt : std::optional<double>(0.5);
  };
  const TrainResult result = train(*tiny(), small_config(), rows, dev, callbacks);
  EXPECT_FALSE(result.history.front().metric);
  double lowest = std::numeric_limits<double>::infinity();
  int64_t at = 0;
  for (const HistoryPoint& p : result.history)
    if (p.metric && *p.dev_loss < lowest) lowest = *p.dev_loss, at = p.step;
  EXPECT_EQ(result.best_step, at);
  EXPECT_EQ(result.best_dev_loss, lowest);
  EXPECT_EQ(result.best_metric, 0.5);
}

TEST(Trainer, ContinuesFromAnAdapterOfTheSameBaseAndShape) {
  const auto rows = some_rows(40, 1), dev = some_rows(10, 2);
  const TrainResult first = train(*tiny(), small_config(), rows, dev);
  TrainConfig config = small_config();
  const auto start = std::make_shared<LoraAdapter>(to_adapter(*first.trained.lora, "tiny"));
  config.start = start;
  const TrainResult second = train(*tiny(), config, rows, dev);
  EXPECT_EQ(second.history.front().dev_loss, first.best_dev_loss) << "it begins where the other ended";
  EXPECT_LT(*second.best_dev_loss, *first.best_dev_loss);
  config.lora.rank = 8;
  EXPECT_THAT(error_of([&] { train(*tiny(), config, rows, dev); }), testing::HasSubstr("continue_from: adapter: rank 4"));
  config.lora.rank = 4;
  config.lora.targets = {"q_proj"};
  EXPECT_THAT(error_of([&] { train(*tiny(), config, rows, dev); }), testing::HasSubstr("continue_from: "));
  config.lora.targets = {"all-linear"};
  JobManifest manifest;
  manifest.base_fingerprint = "another";
  start->manifest = manifest_to_text(manifest);
  EXPECT_THAT(error_of([&] { train(*tiny(), config, rows, dev); }), testing::HasSubstr("another base model"));
  // A run from another start is another run.
  const Folder folder;
  TrainConfig saved = small_config();
  saved.checkpoint = folder.path / "checkpoint.safetensors";
  train(*tiny(), saved, rows, dev);
  start->manifest.clear();
  saved.start = start;
  EXPECT_THAT(error_of([&] { train(*tiny(), saved, rows, dev); }),
              testing::HasSubstr("another adapter to continue from"));
}

TEST(Trainer, EveryStepTellsItsShareOfThePeakInUsefulOperations) {
  TrainConfig config = small_config();
  config.epochs = 1;
  TrainCallbacks callbacks;
  callbacks.peak_operations = 1e9;
  const auto rows = some_rows(8, 1);
  const TrainResult result = train(*tiny(), config, rows, {}, callbacks);
  ASSERT_EQ(result.history.size(), 1u);
  const HistoryPoint& p = result.history[0];
  int64_t trained = 0;
  for (const TrainRow& row : rows) trained += trained_tokens(row);
  const double layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 112;
  const double adapter = 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 112));
  const double operations = 2 * (4 * layer + 6 * adapter) * static_cast<double>(result.tokens) +
                            4 * 300.0 * 64 * static_cast<double>(trained);
  EXPECT_NEAR(*p.peak_share / (operations * p.tokens_per_second / static_cast<double>(result.tokens) / 1e9), 1, 1e-6);
  EXPECT_GE(p.seconds_left, 0);
}

TEST(Trainer, StopsEarlyWhenNothingGetsBetter) {
  TrainConfig config = small_config();
  config.patience = 2;
  TrainCallbacks callbacks;
  callbacks.metric = [](const Trainable&, int64_t) { return 1.0; };
  const TrainResult result = train(*tiny(), config, some_rows(40, 1), {}, callbacks);
  EXPECT_TRUE(result.stopped_early);
  EXPECT_EQ(result.steps, 15);
  EXPECT_EQ(result.best_step, 0);

  const Folder folder;  // and once stopped it takes no further step
  config.checkpoint = folder.path / "checkpoint.safetensors";
  train(*tiny(), config, some_rows(40, 1), {}, callbacks);
  const TrainResult again = train(*tiny(), config, some_rows(40, 1), {}, callbacks);
  EXPECT_TRUE(again.stopped_early);
  EXPECT_EQ(again.steps, 15);
}

TEST(Trainer, StopsAtALossThatIsNotANumberWithStepAndRows) {
  TrainConfig config = small_config();
  config.learning_rate = 1e30;
  config.optimizer.clip = 0;
  config.warmup_share = 0;
  const std::string error = error_of([&] { train(*tiny(), config, some_rows(40, 1), {}); });
  EXPECT_THAT(error, testing::HasSubstr("not a finite number at step"));
  EXPECT_THAT(error, testing::HasSubstr("rows "));
}

TEST(Trainer, RefusesBaseWeightsThatAreNotFiniteByTensorAndRow) {
  ModelFile file = open_model(test::golden("train") / "llama" / "model");
  const auto damage = [&](const char* name, int64_t at) {
    Tensor& tensor = file.tensors.at(name);
    const auto bytes = std::make_shared<std::vector<std::byte>>(tensor.data, tensor.data + tensor.bytes());
    const float broken = std::numeric_limits<float>::quiet_NaN();
    ASSERT_EQ(tensor.type, DType::kF32);
    std::memcpy(bytes->data() + at * 4, &broken, 4);
    tensor.data = bytes->data();
    tensor.owner = bytes;
  };
  damage("model.layers.1.mlp.up_proj.weight", 64 * 5 + 3);
  const auto model = build_model(file);
  EXPECT_THAT(error_of([&] { train(*model, small_config(), some_rows(4, 1), {}); }),
              testing::HasSubstr("tensor 'model.layers.1.mlp.up_proj.weight', row 5, holds a value that is not"));
  file = open_model(test::golden("train") / "llama" / "model");
  damage("model.norm.weight", 0);
  const auto other = build_model(file);
  EXPECT_THAT(error_of([&] { train(*other, small_config(), some_rows(4, 1), {}); }),
              testing::HasSubstr("tensor 'model.norm.weight', row 0,"));
}

TEST(Trainer, GoesOnPastACheckpointThatCantBeWritten) {
  const Folder folder;
  TrainConfig config = small_config();
  config.checkpoint = folder.path / "there" / "checkpoint.safetensors";
  config.checkpoint_seconds = 0;
  std::vector<std::string> warnings;
  TrainCallbacks callbacks;
  callbacks.warn = [&](const std::string& what) { warnings.push_back(what); };
  callbacks.on_step = [&](const HistoryPoint& point) {  // a file takes the folder's place from step 3 to step 5
    if (point.step == 3) {
      std::filesystem::rename(folder.path / "there", folder.path / "kept");
      std::ofstream(folder.path / "there") << "";
    }
    if (point.step == 5) {
      std::filesystem::remove(folder.path / "there");
      std::filesystem::rename(folder.path / "kept", folder.path / "there");
    }
  };
  const auto rows = some_rows(40, 1);
  const TrainResult result = train(*tiny(), config, rows, {}, callbacks);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[0], testing::HasSubstr("step 4 was not saved, that of step 3 is kept; training goes on"));
  config.checkpoint.clear();
  EXPECT_EQ(values_of(result), values_of(train(*tiny(), config, rows, {})));
}

TEST(Trainer, GradientsPassTheReductionHookOnceAStep) {
  TrainConfig config = small_config();
  config.epochs = 1;
  config.lora.targets = {"q_proj"};
  int calls = 0;
  TrainCallbacks callbacks;
  callbacks.reduce = [&](std::span<const std::span<float>> gradients) {
    ++calls;
    EXPECT_EQ(gradients.size(), 4u);  // two layers, a and b
    for (const auto gradient : gradients) std::fill(gradient.begin(), gradient.end(), 0.0f);
  };
  config.optimizer.weight_decay = 0;
  const TrainResult result = train(*tiny(), config, some_rows(16, 1), {}, callbacks);
  EXPECT_EQ(calls, 2);
  const Lora untouched(*tiny(), config.lora, config.seed);
  EXPECT_TRUE(std::equal(untouched.values().begin(), untouched.values().end(), result.trained.lora->values().begin()));
}

TEST(Trainer, RefusesSettingsAndRowsThatMakeNoSense) {
  const auto rows = some_rows(4, 1);
  const auto error_with = [&](const std::function<void(TrainConfig&)>& change) {
    TrainConfig config = small_config();
    change(config);
    return error_of([&] { train(*tiny(), config, rows, {}); });
  };
  EXPECT_THAT(error_with([](TrainConfig& c) { c.learning_rate = 0; }), testing::HasSubstr("learning rate"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.epochs = -1; }), testing::HasSubstr("epochs"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.revisit = 0; }), testing::HasSubstr("revisit"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.revisit = 0.5, c.preference.emplace().loss = PreferenceLoss::kKto; }),
              testing::HasSubstr("revisit"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.batch_rows = 0; }), testing::HasSubstr("batch_rows"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.lora.rank = 0; }), testing::HasSubstr("rank"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.lora.dropout = 1; }), testing::HasSubstr("dropout"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.lora.targets = {"c_attn"}; }), testing::HasSubstr("q_proj"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.lora.targets = {"lm_head"}; }), testing::HasSubstr("head"));
  EXPECT_THAT(error_with([](TrainConfig& c) { c.lora.layers = {0, 2}; }), testing::HasSubstr("no layer 2"));
  EXPECT_THAT(error_of([&] { train(*tiny(), small_config(), {}, {}); }), testing::HasSubstr("no rows"));
  auto longer = some_rows(2, 1);
  longer[1].tokens.resize(200, 1);
  longer[1].trained.resize(200, 1);
  EXPECT_THAT(error_of([&] { train(*tiny(), small_config(), longer, {}); }), testing::HasSubstr("row 2"));
}

TEST(MemoryPlan, SaysWhatEachPurposeTakes) {
  TrainConfig config = small_config();
  const auto rows = some_rows(40, 1);
  const MemoryPlan plan = plan_memory(*tiny(), config, rows);
  EXPECT_EQ(plan.tokens, 60);
  EXPECT_EQ(plan.recomputed_blocks, 0);
  EXPECT_EQ(plan.weights, (300 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 112) + 5 * 64) * sizeof(float));
  config.recompute = Recompute::kOn;
  const MemoryPlan recomputed = plan_memory(*tiny(), config, rows);
  EXPECT_EQ(recomputed.recomputed_blocks, tiny()->config.layers);
  EXPECT_LT(recomputed.activations, plan.activations);
  config.recompute = Recompute::kAuto;
  config.memory_limit = plan.total() - 1;
  const MemoryPlan limited = plan_memory(*tiny(), config, rows);
  EXPECT_GE(limited.recomputed_blocks, 1);
  EXPECT_LE(limited.total(), config.memory_limit);
  config.memory_limit = recomputed.total() - 1;
  EXPECT_THAT(error_of([&] { plan_memory(*tiny(), config, rows); }), testing::HasSubstr("training needs"));
  // The plan holds: what a batch of that size takes is within a tenth of what was planned.
  const Lora lora(*tiny(), config.lora, 1);
  TrainOps ops(*tiny(), &lora, {.precision = GemmPrecision::kF32, .recomputed_blocks = 0});
  const TrainBatch batch = make_batch(rows, pack_in_order(rows, 60).front());
  ops.loss_and_gradients(batch, 1);
  EXPECT_LT(static_cast<double>(ops.buffer_bytes()), 1.1 * static_cast<double>(plan.activations));
  EXPECT_GT(static_cast<double>(ops.buffer_bytes()), 0.6 * static_cast<double>(plan.activations));
}

TEST(MemoryPlan, RefusesWhatDoesNotFitWithBothNumbers) {
  TrainConfig config = small_config();
  config.token_budget = int64_t{1} << 40;
  std::vector<TrainRow> rows(1);
  rows[0].tokens.assign(size_t{1} << 25, 1);  // a third of a terabyte of activations
  rows[0].trained.assign(size_t{1} << 25, 1);
  const std::string error = error_of([&] { plan_memory(*tiny(), config, rows); });
  EXPECT_THAT(error, testing::ContainsRegex("needs [0-9]+ MB and this machine has [0-9]+ MB"));
}

TEST(Lora, StartsAsPeftDoes) {
  LoraConfig config;
  config.rank = 8;
  config.alpha = 16;
  const Lora lora(*tiny(), config, 3);
  EXPECT_EQ(lora.layers().size(), 14u);
  EXPECT_EQ(lora.find(*tiny()->head), nullptr);
  EXPECT_FLOAT_EQ(config.scale(), 2);
  config.rslora = true;
  EXPECT_FLOAT_EQ(config.scale(), 16 / std::sqrt(8.0f));
  for (const LoraLayer& layer : lora.layers()) {
    const float bound = 1 / std::sqrt(static_cast<float>(layer.linear->in()));
    float largest = 0;
    double sum = 0;
    for (int64_t i = 0; i < layer.rank * layer.linear->in(); ++i) {
      largest = std::max(largest, std::abs(layer.a[i]));
      sum += layer.a[i];
    }
    EXPECT_LE(largest, bound);
    EXPECT_GT(largest, 0.9f * bound);
    EXPECT_NEAR(sum / static_cast<double>(layer.rank * layer.linear->in()), 0, 0.1 * bound);
    for (int64_t i = 0; i < layer.rank * layer.linear->out(); ++i) ASSERT_EQ(layer.b[i], 0);
  }
}

TEST(Lora, AdaptsTheChosenLayersAlone) {
  LoraConfig config;
  config.rank = 2;
  config.layers = {1};
  const Lora lora(*tiny(), config, 3);
  EXPECT_EQ(lora.layers().size(), 7u);
  for (const LoraLayer& layer : lora.layers()) EXPECT_THAT(layer.linear->name, testing::HasSubstr("layers.1."));
  EXPECT_EQ(to_adapter(lora, "b").layers, config.layers);
}

TEST(Lora, DoraStartsAsTheBaseModel) {
  LoraConfig config;
  config.rank = 2;
  config.dora = true;
  const Lora dora(*tiny(), config, 3);
  const auto rows = some_rows(5, 1);
  EXPECT_NEAR(evaluate_loss(*tiny(), &dora, rows, GemmPrecision::kF32, 60),
              evaluate_loss(*tiny(), nullptr, rows, GemmPrecision::kF32, 60), 1e-5);
}

TEST(Lora, GoesThroughTheStoredFormUnchanged) {
  LoraConfig config;
  config.rank = 3;
  config.rslora = config.dora = true;
  config.targets = {"q_proj", "mlp.down_proj"};
  const Lora lora(*tiny(), config, 3);
  Random random(1);
  for (float& v : lora.values()) v = random.normal();
  const Folder folder;
  write_adapter(folder.path / "adapter", to_adapter(lora, "some/base"));
  const Lora other(*tiny(), config, 4);
  from_adapter(read_adapter(folder.path / "adapter"), other);
  EXPECT_TRUE(std::equal(lora.values().begin(), lora.values().end(), other.values().begin()));
  config.targets = {"q_proj"};
  const Lora fewer(*tiny(), config, 4);
  EXPECT_THROW(from_adapter(read_adapter(folder.path / "adapter"), fewer), Error);
  config.targets = {"q_proj", "k_proj"};
  const Lora others(*tiny(), config, 4);
  EXPECT_THROW(from_adapter(read_adapter(folder.path / "adapter"), others), Error);
}

TEST(Optimizer, ClipsByTheNormOverAllTensors) {
  std::vector<float> a = {1, 1}, b = {1}, ga = {30, 0}, gb = {40};
  OptimizerConfig config;
  config.clip = 1;
  Optimizer optimizer({{"a", a, ga}, {"b", b, gb}}, config);
  EXPECT_DOUBLE_EQ(optimizer.step(0.1), 50);
  // The first step of Adam moves by the learning rate whatever the scale; the moments show the clipping.
  EXPECT_NEAR(optimizer.first_moment(0)[0], 0.1 * 0.6, 1e-6);
  EXPECT_NEAR(optimizer.first_moment(1)[0], 0.1 * 0.8, 1e-6);
  EXPECT_NEAR(a[0], 0.9, 1e-5);
  EXPECT_EQ(a[1], 1);
  EXPECT_EQ(ga[0], 0);  // zeroed for the next step
  ga[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(std::isfinite(optimizer.step(0.1)));
  EXPECT_NEAR(a[0], 0.9, 1e-5);
  EXPECT_EQ(optimizer.steps(), 1);
}

}  // namespace
}  // namespace thimble
