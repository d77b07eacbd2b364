#include "train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/cross_entropy.h"
#include "train/on_policy.h"
#include "train/prefix_tree.h"
#include "train/trainer.h"

namespace thimble {
namespace {

TrainBatch one_row(int64_t tokens) {
  TrainBatch batch;
  batch.tokens.assign(static_cast<size_t>(tokens), 0);
  batch.targets = batch.tokens;
  batch.weights.assign(static_cast<size_t>(tokens), 1.0f);
  batch.plan.segments.push_back(
      {.query_first = 0, .query_count = static_cast<int32_t>(tokens), .key_first = 0, .position = 0, .ancestors = {}});
  return batch;
}

// Bytes that the ops' buffers take for a batch of one row of so many tokens.
size_t buffers_of(const Model& model, const Trainable& trainable, const TrainConfig& config, int recomputed_blocks,
                  int64_t tokens) {
  TrainOps ops(model, trainable, {.precision = config.precision, .recomputed_blocks = recomputed_blocks});
  ops.loss_and_gradients(one_row(tokens), static_cast<double>(tokens));
  return ops.buffer_bytes();
}

// What a teacher's forward pass takes beside the student's.
size_t teacher_buffers(const DistillConfig& distill, GemmPrecision precision, int64_t tokens) {
  TrainOps ops(*distill.teacher, distill.teacher_adapter, {.precision = precision});
  ops.trained_hidden(one_row(tokens));
  return ops.buffer_bytes();
}

// Of weights that stay as they are.
size_t frozen_bytes(const Model& model, const Trained& trained) {
  size_t bytes = 0;
  for (const Linear& linear : model.linears)
    if (trained.find(linear.weight) == nullptr) bytes += linear.weight.bytes();
  for (const Param& param : model.params)
    if (param.value.data != model.head->weight.data && trained.find(param.value) == nullptr)
      bytes += param.value.bytes();
  return bytes;
}

}  // namespace

MemoryPlan plan_memory(const Model& model, const TrainConfig& config, std::span<const TrainRow> rows) {
  const Trainable trainable = make_trainable(model, config);
  const std::vector<ParameterTensor> parameters = trainable.parameters();
  MemoryPlan plan;
  for (const ParameterTensor& p : parameters)
    plan.trained += p.values.size_bytes() + p.bf16.size_bytes() + 2 * p.gradients.size_bytes();
  plan.weights = frozen_bytes(model, trainable);
  plan.optimizer = Optimizer::state_bytes(parameters, config.optimizer);

  const OnPolicyConfig* own =
      config.distill && config.distill->on_policy.share > 0 ? &config.distill->on_policy : nullptr;
  if (own != nullptr) plan.student = student_bytes(model, *own, config.precision, rows, config.batch_rows);
  int64_t longest = 0, sum = 0;
  for (size_t i = 0; i < rows.size(); i += static_cast<size_t>(config.together())) {
    int64_t tokens = 0;  // of rows that can't go apart
    for (const TrainRow& row : rows.subspan(i, static_cast<size_t>(config.together())))
      tokens += own == nullptr ? computed_tokens(row) : most_computed_tokens(row, *own, model.config.context);
    longest = std::max(longest, tokens);
    sum += tokens;
  }
  plan.tokens = std::max(longest, std::min(config.token_budget + longest_shared(rows), sum));
  // A slice of the logits in f32 and, as an input of a product, in bf16.
  plan.logits = std::min<size_t>(kLogitsBytes, static_cast<size_t>(plan.tokens * model.head->out()) * 4) * 3 / 2;
  plan.other = size_t{32} << 20;
  plan.available = available_memory();
  if (config.distill && config.distill->teacher != nullptr)
    plan.teacher = frozen_bytes(*config.distill->teacher, {}) +
                   teacher_buffers(*config.distill, config.precision, 16) / 16 * static_cast<size_t>(plan.tokens);

  if (config.memory_limit > 0) plan.available = std::min(plan.available, config.memory_limit);

  const auto with = [&](int recomputed_blocks) {
    constexpr int64_t kProbe = 16;
    const size_t one = buffers_of(model, trainable, config, recomputed_blocks, kProbe);
    const size_t two = buffers_of(model, trainable, config, recomputed_blocks, 2 * kProbe);
    plan.recomputed_blocks = recomputed_blocks;
    plan.activations = (std::max(one, two) - one) / kProbe * static_cast<size_t>(plan.tokens);
    return plan;
  };
  const auto fits = [](const MemoryPlan& p) { return p.total() <= p.available; };
  int least = config.recompute == Recompute::kOn ? model.config.layers : 0;
  const int all = config.recompute == Recompute::kOff ? 0 : model.config.layers;
  MemoryPlan fitting = with(least);
  if (fits(fitting)) return fitting;
  if (least < all) fitting = with(all);
  if (fits(fitting)) {
    while (fitting.recomputed_blocks - least > 1) {  // `least` does not fit
      const MemoryPlan middle = with((least + fitting.recomputed_blocks) / 2);
      if (fits(middle)) fitting = middle;
      else least = middle.recomputed_blocks;
    }
    return fitting;
  }
  throw Error(fmt::format(
      "training needs {:.0f} MB and this machine has {:.0f} MB free; lower the token budget ({} tokens a micro-batch), "
      "leave out the longest rows ({} tokens), or {}",
      static_cast<double>(plan.total()) / 1e6, static_cast<double>(plan.available) / 1e6, config.token_budget, longest,
      config.recompute == Recompute::kOff ? "allow recomputing" : "take a smaller model"));
}

}  // namespace thimble
