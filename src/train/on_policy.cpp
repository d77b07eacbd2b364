#include "train/on_policy.h"

#include <algorithm>
#include <memory>

#include "core/cpu.h"
#include "core/random.h"
#include "kernels/kv_layout.h"
#include "text/tokenizer.h"

namespace thimble {
namespace {

// Keys of what is drawn, so that a row's choice says nothing about its answer.
constexpr uint64_t kChoice = 0x6f6e2d706f6c6963, kAnswer = 0x73747564656e7473;

MatmulPrecision packed_precision(GemmPrecision precision) {
  const bool exact = precision == GemmPrecision::kF32 || !has_bf16_products(cpu_level());
  return exact ? MatmulPrecision::kF32 : MatmulPrecision::kFast;
}

int longest_answer(const TrainRow& row, const OnPolicyConfig& config, int64_t context) {
  return static_cast<int>(std::min<int64_t>(config.max_new_tokens, context - static_cast<int64_t>(row.answer)));
}

// Room for a step's answers side by side, but for long prompts no more than some of them at a time.
int64_t cache_tokens(const Model& model, const OnPolicyConfig& config, std::span<const TrainRow> rows, int batch_rows) {
  int64_t longest = 0;
  for (const TrainRow& row : rows)
    longest = std::max(longest, static_cast<int64_t>(row.answer) + longest_answer(row, config, model.config.context));
  return std::min(longest * batch_rows, std::max<int64_t>(longest, 8192)) + kKvSlots;
}

EngineOptions engine_options(const Model& model, const OnPolicyConfig& config, std::span<const TrainRow> rows,
                             int batch_rows) {
  return {.cache_tokens = cache_tokens(model, config, rows, batch_rows), .max_batch = std::min(batch_rows, 64)};
}

// The row with another answer.
TrainRow with_answer(const TrainRow& row, const Answer& answer) {
  TrainRow out = row;
  const auto behind = std::find(row.trained.rbegin(), row.trained.rend(), 1) - row.trained.rbegin();
  const size_t last = row.trained.size() - 1 - static_cast<size_t>(behind);
  out.tokens.resize(row.answer);
  out.trained.resize(row.answer);
  out.tokens.insert(out.tokens.end(), answer.tokens.begin(), answer.tokens.end());
  if (answer.end_token) out.tokens.push_back(*answer.end_token);
  out.trained.resize(out.tokens.size(), 1);
  if (row.weights.empty()) return out;
  out.weights.resize(row.answer);
  out.weights.resize(out.tokens.size(), row.weights[last]);
  return out;
}

}  // namespace

StudentAnswers::StudentAnswers(const Model& model, const Lora& adapter, const OnPolicyConfig& config,
                               GemmPrecision precision, std::span<const TrainRow> rows, int batch_rows, uint64_t seed)
    : adapter_(adapter),
      config_(config),
      rows_(rows),
      seed_(seed),
      prepared_(std::make_shared<PreparedModel>(std::shared_ptr<const Model>(std::shared_ptr<void>(), &model),
                                                packed_precision(precision))),
      number_(prepared_->add_adapter(to_adapter(adapter, ""))),
      engine_(prepared_, Tokenizer::from(model.vocabulary), engine_options(model, config, rows, batch_rows)) {}

std::optional<StudentAnswers::Step> StudentAnswers::answer(std::span<const MicroBatch> planned, int64_t epoch,
                                                           const std::atomic<bool>* cancelled) {
  std::vector<int> chosen;
  for (const MicroBatch& micro : planned) chosen.insert(chosen.end(), micro.rows.begin(), micro.rows.end());
  std::sort(chosen.begin(), chosen.end());
  Step step;
  std::vector<std::optional<Engine::Id>> asked;
  bool changed = true;
  for (const int index : chosen) {
    const TrainRow& row = step.rows.emplace_back(rows_[static_cast<size_t>(index)]);
    const uint64_t place = static_cast<uint64_t>(epoch) * rows_.size() + static_cast<uint64_t>(index);
    asked.emplace_back();
    if (static_cast<double>(random_bits(seed_ ^ kChoice, place) >> 11) * 0x1.0p-53 >= config_.share) continue;
    if (std::exchange(changed, false)) {
      prepared_->replace_adapter(number_, to_adapter(adapter_, ""));
      engine_.forget();
    }
    GenerateRequest request;
    request.prompt.assign(row.tokens.begin(), row.tokens.begin() + static_cast<std::ptrdiff_t>(row.answer));
    request.max_tokens = longest_answer(row, config_, prepared_->model().config.context);
    request.sampling.temperature = config_.temperature;
    request.sampling.seed = random_bits(seed_ ^ kAnswer, place);
    request.adapter = number_;
    asked.back() = engine_.submit(std::move(request));
  }
  while (engine_.step()) {
    if (cancelled == nullptr || !cancelled->load()) continue;
    for (const auto& id : asked)
      if (id) engine_.cancel(*id);
  }
  bool whole = true;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (!asked[i]) continue;
    const Answer answer = engine_.take(*asked[i]).value();
    whole = whole && answer.finish != FinishReason::kCancelled;
    step.rows[i] = with_answer(step.rows[i], answer);
    step.sampled_tokens += static_cast<int64_t>(answer.tokens.size()) + (answer.end_token ? 1 : 0);
  }
  return whole ? std::optional(std::move(step)) : std::nullopt;
}

int64_t most_computed_tokens(const TrainRow& row, const OnPolicyConfig& config, int64_t context) {
  return std::max(computed_tokens(row), static_cast<int64_t>(row.answer) + longest_answer(row, config, context));
}

size_t student_bytes(const Model& model, const OnPolicyConfig& config, GemmPrecision precision,
                     std::span<const TrainRow> rows, int batch_rows) {
  const MatmulPrecision packed = packed_precision(precision);
  size_t bytes = 0;
  for (const Linear& layer : model.linears) bytes += packed_bytes(layer.weight.type, layer.out(), layer.in(), packed);
  for (const Param& param : model.params)
    if (param.value.data != model.head->weight.data) bytes += param.value.bytes();
  const KvLayout layout{packed == MatmulPrecision::kF32 ? KvType::kF32 : KvType::kF16, model.config.kv_heads,
                        model.config.head_dim};
  return bytes + 2 * static_cast<size_t>(model.config.layers) *
                     layout.bytes(cache_tokens(model, config, rows, batch_rows));
}

}  // namespace thimble
