#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace thimble {

Optimizer::Optimizer(std::vector<ParameterTensor> parameters, OptimizerConfig config)
    : parameters_(std::move(parameters)), config_(config) {
  size_t total = 0;
  for (const ParameterTensor& p : parameters_) {
    offsets_.push_back(total);
    total += p.values.size();
  }
  offsets_.push_back(total);
  moments_ = Buffer<float>(2 * total);
}

std::span<float> Optimizer::moment(size_t i, size_t which) const {
  return {moments_.data() + which * offsets_.back() + offsets_[i], parameters_[i].values.size()};
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
    const AdamWSettings settings{static_cast<float>(learning_rate), config_.beta1, config_.beta2, config_.epsilon,
                                 config_.weight_decay};
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const ParameterTensor& p = parameters_[i];
      adamw_step(settings, steps_, static_cast<float>(factor), p.gradients.data(),
                 static_cast<int64_t>(p.values.size()), p.values.data(), first_moment(i).data(),
                 second_moment(i).data());
    }
    round_values(parameters_);
  }
  zero_gradients(parameters_);
  return norm;
}

}  // namespace thimble
