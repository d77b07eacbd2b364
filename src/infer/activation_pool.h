#pragma once

#include <map>
#include <memory>
#include <vector>

#include "models/ops.h"

namespace thimble {

// Hands out activations and takes their buffers back when the last handle goes, so that a forward pass allocates
// nothing after the first. Contents of a fresh activation are undefined. Must outlive its activations.
class ActivationPool {
 public:
  Act get(int64_t rows, int64_t cols) {
    const auto need = static_cast<size_t>(rows * cols);
    std::unique_ptr<Activation> activation;
    const auto fit = free_.lower_bound(need);
    if (fit != free_.end() && fit->first <= 2 * need + 4096) {
      activation = std::move(fit->second);
      free_.erase(fit);
    } else {
      activation = std::make_unique<Activation>();
      activation->values = Buffer<float>(need);
    }
    activation->rows = rows;
    activation->cols = cols;
    return Act(activation.release(), [this](Activation* a) {
      free_.emplace(a->values.size(), std::unique_ptr<Activation>(a));
    });
  }

 private:
  std::multimap<size_t, std::unique_ptr<Activation>> free_;  // by capacity in floats
};

}  // namespace thimble
