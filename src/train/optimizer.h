#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "kernels/adamw.h"
#include "train/parameters.h"

namespace thimble {

// Sees every gradient once a step, after the last micro-batch and before clipping: other ranks' gradients are added
// here. The sums must not depend on who adds first.
using ReduceGradients = std::function<void(std::span<const std::span<float>> gradients)>;

struct OptimizerConfig {
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  float clip = 1;  // largest norm over all gradients together; 0 = no clipping
  bool eight_bit = false;   // moments take a byte each (kernels/adamw8.h), but for tensors below 4,096 elements
  uint64_t rounding_seed = 0;  // of stochastic rounding, where bf16 alone holds values
};

// AdamW over a list of tensors, with clipping by the global norm. Values that bf16 alone holds are widened, changed and
// rounded stochastically.
class Optimizer {
 public:
  Optimizer(std::vector<ParameterTensor> parameters, OptimizerConfig config);

  ReduceGradients reduce;  // may be empty

  // Changes the values, then zeroes the gradients. Returns the norm before clipping; where it is not finite
  // nothing is changed but the gradients zeroed, and the caller decides.
  double step(double learning_rate);

  int64_t steps() const { return steps_; }
  const std::vector<ParameterTensor>& parameters() const { return parameters_; }
  // What a run takes for the moments of these parameters.
  static size_t state_bytes(std::span<const ParameterTensor> parameters, const OptimizerConfig& config);
  // State for checkpoints: first and second moments of parameters()[i]; 8-bit ones as their codes, filled up to whole
  // floats, and the blocks' scales.
  std::span<float> first_moment(size_t i) const { return moment(i, 0); }
  std::span<float> second_moment(size_t i) const { return moment(i, 1); }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  std::span<float> moment(size_t i, size_t which) const;
  void step(size_t i, const AdamWSettings& settings, float gradient_scale, int64_t first, int64_t count, float* values);

  std::vector<ParameterTensor> parameters_;
  OptimizerConfig config_;
  std::vector<size_t> offsets_;  // of each parameter's moments
  Buffer<float> moments_;        // first, then second moments of all parameters
  int64_t steps_ = 0;
};

}  // namespace thimble
