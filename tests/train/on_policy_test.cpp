#include "train/on_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "stories.h"
#include "train/trainer.h"

namespace thimble {
namespace {

std::shared_ptr<const Model> stories() {
  static const auto model = load_model(test::stories_model());
  return model;
}

// Values that tests/oracle/make_on_policy_golden.py makes too.
void adapter_values(const Lora& lora) {
  const auto fill = [](float* values, int64_t count, double scale, double phase) {
    for (int64_t i = 0; i < count; ++i)
      values[i] = static_cast<float>(scale * std::sin(0.37 * static_cast<double>(i) + phase));
  };
  for (const LoraLayer& layer : lora.layers()) {
    const std::string& name = layer.linear->name;
    const double number = std::stod(name.substr(name.find("layers.") + 7));
    const double phase = number + (name.ends_with("q_proj") ? 0.1 : name.ends_with("v_proj") ? 0.2 : 0.3);
    fill(layer.a, layer.rank * layer.linear->in(), 0.2, phase);
    fill(layer.b, layer.rank * layer.linear->out(), 0.1, phase + 1);
  }
}

struct Golden {
  nlohmann::json json = nlohmann::json::parse(read_file(test::golden("train") / "on_policy.json"));
  std::vector<TrainRow> rows;  // with an answer of their own that is not the student's
  TrainConfig config;
  std::shared_ptr<LoraAdapter> student;

  Golden() {
    for (const auto& row : json.at("rows")) {
      TrainRow& out = rows.emplace_back();
      out.tokens = row.at("prompt").get<std::vector<int32_t>>();
      out.answer = out.tokens.size();
      out.trained.resize(out.answer);
      for (int i = 0; i < 3; ++i) {
        out.tokens.push_back(300 + i);
        out.trained.push_back(1);
      }
      out.row = static_cast<int>(rows.size());
    }
    config.lora.rank = json.at("rank");
    config.lora.alpha = static_cast<float>(json.at("scale").get<double>() * config.lora.rank);
    config.lora.targets = {"q_proj", "v_proj", "down_proj"};
    config.learning_rate = 1e-3;
    config.warmup_share = 0;
    config.epochs = 1;
    config.batch_rows = 4;
    config.token_budget = 40;
    config.evaluations = 0;
    config.precision = GemmPrecision::kF32;
    config.distill.emplace();
    config.distill->teacher = stories().get();
    config.distill->beta = json.at("beta");
    config.distill->on_policy = {.share = 1, .temperature = 0, .max_new_tokens = json.at("max_new_tokens")};
    const Lora lora(*stories(), config.lora, 1);
    adapter_values(lora);
    student = std::make_shared<LoraAdapter>(to_adapter(lora, ""));
    config.start = student;
  }

  std::vector<int32_t> expected(size_t row) const {
    auto out = json.at("rows").at(row).at("prompt").get<std::vector<int32_t>>();
    for (const auto& token : json.at("rows").at(row).at("answer")) out.push_back(token);
    return out;
  }
  StudentAnswers answers(const Lora& lora, const OnPolicyConfig& own, uint64_t seed = 1) const {
    return StudentAnswers(*stories(), lora, own, GemmPrecision::kF32, rows, config.batch_rows, seed);
  }
  std::vector<MicroBatch> all() const { return pack_in_order(rows, 1000); }
};

TEST(OnPolicy, TheRowsAreTheStudentsOwn) {
  THIMBLE_REQUIRE_STORIES();
  const Golden golden;
  Lora lora(*stories(), golden.config.lora, 1);
  StudentAnswers answers = golden.answers(lora, golden.config.distill->on_policy);
  // What it said before its weights changed must not come back.
  const auto untrained = answers.answer(golden.all(), 0);
  adapter_values(lora);
  const auto step = answers.answer(golden.all(), 0);
  ASSERT_EQ(step->rows.size(), golden.rows.size());
  int64_t sampled = 0;
  for (size_t i = 0; i < golden.rows.size(); ++i) {
    EXPECT_EQ(step->rows[i].tokens, golden.expected(i)) << "row " << i;
    EXPECT_NE(step->rows[i].tokens, untrained->rows[i].tokens);
    EXPECT_EQ(trained_tokens(step->rows[i]),
              static_cast<int64_t>(step->rows[i].tokens.size() - golden.rows[i].answer));
    EXPECT_EQ(step->rows[i].row, golden.rows[i].row);
    sampled += trained_tokens(step->rows[i]);
  }
  EXPECT_EQ(step->sampled_tokens, sampled);
}

TEST(OnPolicy, LossAndGradientAreThoseOfPyTorchOverTheseTokens) {
  THIMBLE_REQUIRE_STORIES();
  const Golden golden;
  for (const auto& [name, divergence] : {std::pair{"forward_kl", Divergence::kForwardKl},
                                         {"reverse_kl", Divergence::kReverseKl}, {"jsd", Divergence::kJsd}}) {
    TrainConfig config = golden.config;
    config.distill->divergence = divergence;
    const TrainResult result = train(*stories(), config, golden.rows, {});
    const auto& expected = golden.json.at("losses").at(name);
    ASSERT_EQ(result.history.size(), 1u);
    EXPECT_NEAR(result.history[0].loss, expected.at("loss").get<double>(), 1e-5 * expected.at("loss").get<double>());
    EXPECT_NEAR(result.history[0].gradient_norm, expected.at("gradient_norm").get<double>(),
                1e-4 * expected.at("gradient_norm").get<double>());
    EXPECT_EQ(result.history[0].sampled_tokens, 48);
  }
}

TEST(OnPolicy, SeedEpochAndRowDecideWhatIsSampled) {
  THIMBLE_REQUIRE_STORIES();
  Golden golden;
  for (int copies = 0; copies < 5; ++copies)
    for (int i = 0; i < 4; ++i) golden.rows.push_back(golden.rows[static_cast<size_t>(i)]);
  for (TrainRow& row : golden.rows) row.weights.assign(row.tokens.size(), 0.5f);
  Lora lora(*stories(), golden.config.lora, 1);
  const OnPolicyConfig own{.share = 0.5, .temperature = 50, .max_new_tokens = 300};
  const auto rows_of = [&](uint64_t seed, int64_t epoch) {
    StudentAnswers answers = golden.answers(lora, own, seed);
    return answers.answer(golden.all(), epoch)->rows;
  };
  const auto tokens = [](const std::vector<TrainRow>& rows) {
    std::vector<std::vector<int32_t>> out;
    for (const TrainRow& row : rows) out.push_back(row.tokens);
    return out;
  };
  const auto once = rows_of(1, 0);
  EXPECT_EQ(tokens(rows_of(1, 0)), tokens(once));
  EXPECT_NE(tokens(rows_of(2, 0)), tokens(once));
  EXPECT_NE(tokens(rows_of(1, 1)), tokens(once));
  int own_answers = 0, ended = 0;
  const Tokenizer tokenizer = Tokenizer::from(stories()->vocabulary);
  for (size_t i = 0; i < once.size(); ++i) {
    if (once[i].tokens == golden.rows[i].tokens) continue;
    ++own_answers;
    const size_t said = once[i].tokens.size() - once[i].answer;
    for (size_t t = once[i].answer; t + 1 < once[i].tokens.size(); ++t)
      EXPECT_FALSE(tokenizer.ends_answer(once[i].tokens[t]));
    ended += tokenizer.ends_answer(once[i].tokens.back()) ? 1 : 0;
    EXPECT_TRUE(said == 300 || tokenizer.ends_answer(once[i].tokens.back())) << said;
    EXPECT_EQ(once[i].weights, std::vector<float>(once[i].tokens.size(), 0.5f));
  }
  EXPECT_GT(own_answers, 5);
  EXPECT_LT(own_answers, 19);
  EXPECT_GT(ended, 0) << "at this temperature some answers end, and their end is learned";
  // A part of the rows is answered as it is among all.
  StudentAnswers answers = golden.answers(lora, own);
  const auto part = answers.answer(std::vector<MicroBatch>{{.rows = {7, 3}, .tokens = 0}}, 0);
  EXPECT_EQ(part->rows[0].tokens, once[3].tokens);
  EXPECT_EQ(part->rows[1].tokens, once[7].tokens);
}

TEST(OnPolicy, AnInterruptedRunGoesOnToTheBit) {
  THIMBLE_REQUIRE_STORIES();
  std::string folder = (std::filesystem::temp_directory_path() / "thimble_on_policy_XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const Golden golden;
  TrainConfig config = golden.config;
  config.distill->on_policy = {.share = 0.7, .temperature = 1, .max_new_tokens = 20};
  config.epochs = 4;
  config.batch_rows = 2;
  config.precision = GemmPrecision::kBF16;
  const TrainResult whole = train(*stories(), config, golden.rows, {});
  config.checkpoint = std::filesystem::path(folder) / "checkpoint.safetensors";
  for (const int64_t stop : {1, 4, 7}) {
    std::atomic<bool> cancelled{false};
    TrainCallbacks callbacks;
    callbacks.cancelled = &cancelled;
    callbacks.on_step = [&](const HistoryPoint& point) { cancelled = point.step == stop; };
    EXPECT_TRUE(train(*stories(), config, golden.rows, {}, callbacks).cancelled);
  }
  TrainConfig other = config;
  other.distill->on_policy.share = 0.6;
  EXPECT_THROW(train(*stories(), other, golden.rows, {}), Error);
  const TrainResult again = train(*stories(), config, golden.rows, {});
  EXPECT_TRUE(std::ranges::equal(again.trained.lora->values(), whole.trained.lora->values()));
  ASSERT_EQ(again.history.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(again.history[i].loss, whole.history[i].loss);
    EXPECT_EQ(again.history[i].sampled_tokens, whole.history[i].sampled_tokens);
  }
  EXPECT_GT(*again.history.back().sampled_tokens, 30);
  std::filesystem::remove_all(folder);
}

TEST(OnPolicy, TheMemoryPlanKnowsIt) {
  THIMBLE_REQUIRE_STORIES();
  const Golden golden;
  TrainConfig config = golden.config;
  const MemoryPlan with = plan_memory(*stories(), config, golden.rows);
  EXPECT_GE(with.tokens, 40) << "four answers of up to 12 tokens and their prompts are more than the budget";
  EXPECT_GT(with.student, size_t{1000000});
  config.distill->on_policy.share = 0;
  const MemoryPlan without = plan_memory(*stories(), config, golden.rows);
  EXPECT_EQ(without.student, 0u);
  EXPECT_LT(without.tokens, 40);
}

TEST(OnPolicy, RefusesWhatMakesNoSense) {
  THIMBLE_REQUIRE_STORIES();
  const Golden golden;
  const auto said = [&](const std::function<void(TrainConfig&)>& change, int64_t answer = -1) -> std::string {
    TrainConfig config = golden.config;
    change(config);
    auto rows = golden.rows;
    if (answer >= 0) rows[1].answer = static_cast<size_t>(answer);
    try {
      train(*stories(), config, rows, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  using testing::HasSubstr;
  const auto nothing = [](TrainConfig&) {};
  EXPECT_THAT(said([](TrainConfig& c) { c.distill->on_policy.share = 1.5; }), HasSubstr("from 0 to 1"));
  EXPECT_THAT(said([](TrainConfig& c) { c.distill->on_policy.temperature = -1; }), HasSubstr("0 or more"));
  EXPECT_THAT(said([](TrainConfig& c) { c.distill->on_policy.max_new_tokens = 0; }), HasSubstr("1 or more"));
  EXPECT_THAT(said([](TrainConfig& c) { c.distill->weight = 0.5f; }), HasSubstr("no right tokens"));
  EXPECT_THAT(said([](TrainConfig& c) {
                c.weights.train = true;
                c.start = nullptr;
              }),
              HasSubstr("need an adapter"));
  EXPECT_THAT(said(nothing, 0), HasSubstr("row 2: it has no prompt"));
  EXPECT_THAT(said(nothing, 9), HasSubstr("row 2: it has no prompt"));
}

}  // namespace
}  // namespace thimble
