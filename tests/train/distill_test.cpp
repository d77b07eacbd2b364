#include "train/distill.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/random.h"
#include "train/oracle_case.h"
#include "train/trainer.h"

namespace thimble {
namespace {

std::vector<TrainRow> some_rows(int count, uint64_t seed) {
  std::vector<TrainRow> rows;
  Random random(seed);
  for (int i = 0; i < count; ++i) {
    TrainRow row;
    row.row = i + 1;
    for (int t = 0; t < 14; ++t) {
      row.tokens.push_back(t < 5 ? t : static_cast<int32_t>(random.below(300)));
      row.trained.push_back(t >= 9 ? 1 : 0);
    }
    rows.push_back(row);
  }
  return rows;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was refused";
}

// The oracle's model with its adapter as teacher, without as student.
struct Pair {
  test::OracleCase teacher = test::load_case(test::golden("train") / "llama");
  const Model& student() const { return *teacher.model; }
  TrainConfig config(Divergence divergence) const {
    TrainConfig config;
    config.lora.rank = 8;
    config.lora.alpha = 16;
    config.learning_rate = 1e-2;
    config.epochs = 12;
    config.batch_rows = 8;
    config.token_budget = 100;
    config.evaluations = 2;
    config.precision = GemmPrecision::kF32;
    config.distill.emplace();
    config.distill->divergence = divergence;
    config.distill->teacher = teacher.model.get();
    config.distill->teacher_adapter = teacher.lora.get();
    return config;
  }
};

TEST(Distill, TheStudentComesNearTheTeacher) {
  const Pair pair;
  const auto rows = some_rows(24, 1), dev = some_rows(6, 2);
  for (const Divergence divergence : {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kJsd}) {
    const TrainResult result = train(pair.student(), pair.config(divergence), rows, dev);
    const double first = *result.history.front().dev_loss, last = *result.best_dev_loss;
    EXPECT_GT(first, 0.01);
    EXPECT_LT(last, 0.8 * first) << static_cast<int>(divergence);
  }
}

TEST(Distill, ATeacherIsAtNoDistanceFromItself) {
  const Pair pair;
  TrainConfig config = pair.config(Divergence::kForwardKl);
  config.distill->teacher_adapter = nullptr;
  const TrainResult result = train(pair.student(), config, some_rows(4, 1), some_rows(2, 2));
  EXPECT_NEAR(*result.history.front().dev_loss, 0, 1e-6);
  EXPECT_LT(result.history.back().gradient_norm, 1e-5);
}

TEST(Distill, TheWeightGoesBetweenTeacherAndGold) {
  const Pair pair;
  const auto rows = some_rows(6, 1);
  const auto loss_of = [&](std::optional<float> weight) {
    TrainConfig config = pair.config(Divergence::kForwardKl);
    if (weight)
      config.distill->weight = *weight;
    else
      config.distill.reset();
    config.epochs = 1;
    return *train(pair.student(), config, rows, rows).history.front().dev_loss;
  };
  EXPECT_NEAR(loss_of(0.25f), 0.25 * loss_of(1.0f) + 0.75 * loss_of({}), 1e-5);
}

TEST(Distill, SavedTokensTeachAsTheTeacherDoes) {
  const Pair pair;
  auto rows = some_rows(10, 1);
  const auto top = likeliest_tokens(pair.student(), pair.teacher.lora.get(), rows, 20, GemmPrecision::kF32, 60);
  ASSERT_EQ(top.size(), rows.size());
  TrainOps ops(pair.student(), pair.teacher.lora.get(), {.precision = GemmPrecision::kF32});
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(top[i].size(), 5u);
    EXPECT_EQ(top[i][0].size(), 20u);
    // The first of each, against the logits of the row alone.
    const TrainBatch batch = make_batch(rows, {.rows = {static_cast<int>(i)}, .tokens = 0});
    const Buffer<float> logits = ops.logits(batch);
    const float* last = logits.data() + 12 * 300;
    EXPECT_EQ(top[i][4][0].token, std::max_element(last, last + 300) - last);
  }

  const auto file = std::filesystem::path(testing::TempDir()) / ("distill_" + std::to_string(::getpid()) + ".jsonl");
  write_file(file, teacher_to_jsonl(rows, top));
  read_teacher(file, rows);
  EXPECT_EQ(rows[3].teacher[2][1].token, top[3][2][1].token);
  EXPECT_NEAR(rows[3].teacher[2][1].log_prob, top[3][2][1].log_prob, 1e-3);

  TrainConfig live = pair.config(Divergence::kForwardKl), saved = live;
  live.epochs = saved.epochs = 1;
  saved.distill->teacher = nullptr;
  saved.distill->teacher_adapter = nullptr;
  const double from_teacher = *train(pair.student(), live, rows, rows).history.front().dev_loss;
  const double from_file = *train(pair.student(), saved, rows, rows).history.front().dev_loss;
  EXPECT_LE(from_file, from_teacher) << "what is one class tells less apart";
  EXPECT_GT(from_file, 0.1 * from_teacher);

  auto others = rows;
  others[1].tokens[12] += 1;
  EXPECT_THAT(error_of([&] { read_teacher(file, others); }), testing::HasSubstr("row 2 was saved with another answer"));
  others = some_rows(11, 1);
  EXPECT_THAT(error_of([&] { read_teacher(file, others); }), testing::HasSubstr("row 11 is not in it"));
  for (const auto& [text, said] : {std::pair{"{\"row\": 1}", "not a teacher's tokens"},
                                   {"{\"row\": 1", "not usable JSON"}}) {
    write_file(file, text);
    EXPECT_THAT(error_of([&] { read_teacher(file, rows); }), testing::HasSubstr(said));
  }
  const auto one = [&](const char* pairs) {
    TrainRow row{{1, 2}, {0, 1}, 1, {}};
    write_file(file, fmt::format("{{\"row\": 1, \"tokens\": [2], \"top\": [{}]}}", pairs));
    return error_of([&] { read_teacher(file, std::span(&row, 1)); });
  };
  EXPECT_THAT(one("[[3, -0.1], [3, -9]]"), testing::HasSubstr("stands once"));
  EXPECT_THAT(one("[[3, 0.1]]"), testing::HasSubstr("at most 0"));
  EXPECT_THAT(one("[[3, -0.1], [4, -0.1]]"), testing::HasSubstr("together"));
  EXPECT_EQ(one("[[3, -0.1], [4, -4]]"), "nothing was refused");
  std::filesystem::remove(file);
}

TEST(Distill, AnInterruptedRunGoesOnToTheBitAndAnotherTeacherIsAnotherRun) {
  std::string folder = (std::filesystem::temp_directory_path() / "thimble_distill_XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const Pair pair;
  const auto rows = some_rows(16, 1), dev = some_rows(4, 2);
  TrainConfig config = pair.config(Divergence::kJsd);
  config.epochs = 4;
  const TrainResult whole = train(pair.student(), config, rows, dev);
  config.checkpoint = std::filesystem::path(folder) / "checkpoint.safetensors";
  std::atomic<bool> cancelled{false};
  TrainCallbacks callbacks;
  callbacks.cancelled = &cancelled;
  callbacks.on_step = [&](const HistoryPoint& point) { cancelled = point.step == 3; };
  EXPECT_TRUE(train(pair.student(), config, rows, dev, callbacks).cancelled);
  TrainConfig other = config;
  other.distill->teacher_adapter = nullptr;
  EXPECT_THROW(train(pair.student(), other, rows, dev), Error);
  const TrainResult again = train(pair.student(), config, rows, dev);
  EXPECT_TRUE(std::ranges::equal(again.trained.lora->values(), whole.trained.lora->values()));
  std::filesystem::remove_all(folder);
}

TEST(Distill, RefusesWhatMakesNoSense) {
  const Pair pair;
  const auto rows = some_rows(4, 1);
  const auto said = [&](const std::function<void(DistillConfig&)>& change) {
    TrainConfig config = pair.config(Divergence::kJsd);
    change(*config.distill);
    return error_of([&] { train(pair.student(), config, rows, {}); });
  };
  EXPECT_THAT(said([](DistillConfig& c) { c.temperature = 0; }), testing::HasSubstr("temperature is 0"));
  EXPECT_THAT(said([](DistillConfig& c) { c.weight = 1.5f; }), testing::HasSubstr("weight is 1.5"));
  EXPECT_THAT(said([](DistillConfig& c) { c.beta = 1; }), testing::HasSubstr("beta is 1"));
  EXPECT_THAT(said([](DistillConfig& c) { c.teacher = nullptr; }), testing::HasSubstr("no teacher for its tokens"));
  const auto bias = test::load_case(test::golden("train") / "llama_bias");
  EXPECT_THAT(said([&](DistillConfig& c) {
                c.teacher = bias.model.get();
                c.teacher_adapter = nullptr;
              }),
              testing::HasSubstr("one vocabulary"));
}

}  // namespace
}  // namespace thimble
