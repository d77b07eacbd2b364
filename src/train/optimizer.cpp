#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/adamw8.h"
#include "kernels/elementwise.h"
#include "kernels/stochastic_rounding.h"
#include "tensor/half.h"

namespace thimble {
namespace {

// As bitsandbytes does, small tensors (norms, biases) keep exact moments: they save nothing.
bool in_8_bits(const ParameterTensor& p, const OptimizerConfig& config) { return config.eight_bit && p.size() >= 4096; }

size_t code_floats(size_t count) { return (count + 3) / 4; }

// Floats that one moment of a parameter takes.
size_t moment_floats(const ParameterTensor& p, const OptimizerConfig& config) {
  if (!in_8_bits(p, config)) return p.size();
  return code_floats(p.size()) + (p.size() + kAdamW8Block - 1) / kAdamW8Block;
}

}  // namespace

size_t Optimizer::state_bytes(std::span<const ParameterTensor> parameters, const OptimizerConfig& config) {
  size_t floats = 0;
  for (const ParameterTensor& p : parameters) floats += 2 * moment_floats(p, config);
  return floats * sizeof(float);
}

Optimizer::Optimizer(std::vector<ParameterTensor> parameters, OptimizerConfig config)
    : parameters_(std::move(parameters)), config_(config) {
  size_t total = 0;
  for (const ParameterTensor& p : parameters_) {
    offsets_.push_back(total);
    total += moment_floats(p, config_);
  }
  offsets_.push_back(total);
  moments_ = Buffer<float>(2 * total);
}

std::span<float> Optimizer::moment(size_t i, size_t which) const {
  return {moments_.data() + which * offsets_.back() + offsets_[i], offsets_[i + 1] - offsets_[i]};
}

// Elements [first, first + count) of a parameter, whose values stand at `values`; first is a multiple of a block.
void Optimizer::step(size_t i, const AdamWSettings& settings, float gradient_scale, int64_t first, int64_t count,
                     float* values) {
  const ParameterTensor& p = parameters_[i];
  float *const m = first_moment(i).data(), *const v = second_moment(i).data();
  const float* const gradients = p.gradients.data() + first;
  if (!in_8_bits(p, config_))
    return adamw_step(settings, steps_, gradient_scale, gradients, count, values, m + first, v + first);
  const size_t codes = code_floats(p.size());
  const int64_t block = first / kAdamW8Block;
  adamw8_step(settings, steps_, gradient_scale, gradients, count, values,
              {reinterpret_cast<uint8_t*>(m) + first, reinterpret_cast<uint8_t*>(v) + first, m + codes + block,
               v + codes + block});
}

double Optimizer::step(double learning_rate) {
  if (reduce) {
    std::vector<std::span<float>> gradients;
    for (const ParameterTensor& p : parameters_) gradients.push_back(p.gradients);
    reduce(gradients);
  }
  double sum = 0;
  for (const ParameterTensor& p : parameters_)
    sum += squared_norm(p.gradients.data(), static_cast<int64_t>(p.gradients.size()));
  const double norm = std::sqrt(sum);
  if (std::isfinite(norm)) {
    ++steps_;
    // torch.nn.utils.clip_grad_norm_ adds the same 1e-6.
    const double factor = config_.clip > 0 ? std::min(1.0, config_.clip / (norm + 1e-6)) : 1.0;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const ParameterTensor& p = parameters_[i];
      const AdamWSettings settings{static_cast<float>(learning_rate * p.rate), config_.beta1, config_.beta2,
                                   config_.epsilon, config_.weight_decay};
      const auto count = static_cast<int64_t>(p.size());
      if (!p.values.empty()) {
        step(i, settings, static_cast<float>(factor), 0, count, p.values.data());
        continue;
      }
      constexpr int64_t kPiece = int64_t{1} << 20;
      const uint64_t key = (config_.rounding_seed + static_cast<uint64_t>(steps_)) * 0xd1342543de82ef95u + i;
      Buffer<float> wide(static_cast<size_t>(std::min(count, kPiece)));
      for (int64_t first = 0; first < count; first += kPiece) {
        const int64_t n = std::min(kPiece, count - first);
        uint16_t* const stored = p.bf16.data() + first;
        for (int64_t k = 0; k < n; ++k) wide.data()[k] = bf16_to_f32(stored[k]);
        step(i, settings, static_cast<float>(factor), first, n, wide.data());
        round_stochastically(wide.data(), n, key, first, stored);
      }
    }
    round_values(parameters_);
  }
  zero_gradients(parameters_);
  return norm;
}

}  // namespace thimble
