#pragma once

#include <cstdint>
#include <span>

#include "models/model.h"
#include "train/pack.h"
#include "train/train_ops.h"

namespace thimble {

struct TrainConfig;

// Whether the inside of a layer is computed a second time instead of being kept.
enum class Recompute { kAuto, kOff, kOn };

// What a run will take, in bytes, by purpose.
struct MemoryPlan {
  size_t weights = 0;      // of the base, mapped from its file
  size_t trained = 0;      // values, their bf16 copies, gradients, and the best so far
  size_t optimizer = 0;    // first and second moments
  size_t activations = 0;  // kept for backward and in flight, of the largest micro-batch
  size_t logits = 0;       // one slice
  size_t teacher = 0;      // of distillation: its weights, mapped, and its forward pass
  size_t student = 0;      // of on-policy distillation: the student packed for answers, and its cache
  size_t other = 0;        // kernels' scratch, the program itself
  int64_t tokens = 0;      // of the largest micro-batch
  int recomputed_blocks = 0;  // TrainOps::Options has it
  size_t available = 0;       // on this machine, for this process, or what the settings allow where that is less

  size_t total() const { return weights + trained + optimizer + activations + logits + teacher + student + other; }
};

// Runs a few tokens through the model to see what a token takes, and chooses how many blocks are computed a second time:
// as few as there is room for. Throws Error with both numbers where not even recomputing all does fit.
MemoryPlan plan_memory(const Model& model, const TrainConfig& config, std::span<const TrainRow> rows);

}  // namespace thimble
