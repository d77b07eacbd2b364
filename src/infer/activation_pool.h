#pragma once

#include <iterator>
#include <map>
#include <memory>
#include <vector>

#include "models/ops.h"

namespace thimble {

// Hands out activations and takes their buffers back when the last handle goes, so that a forward pass allocates
// nothing after the first. Contents of a fresh activation are undefined. Must outlive its activations.
// A buffer that is missing takes the place of one that is free and too small: passes come with any number of rows, and
// so the pool never holds more than the largest of them need.
class ActivationPool {
 public:
  Act get(int64_t rows, int64_t cols) {
    const auto need = static_cast<size_t>(rows * cols);
    std::unique_ptr<Activation> activation;
    const auto fit = free_.lower_bound(need);
    if (fit != free_.end()) {
      activation = std::move(fit->second);
      free_.erase(fit);
    } else {
      if (!free_.empty()) {
        bytes_ -= free_.rbegin()->first * sizeof(float);
        free_.erase(std::prev(free_.end()));
      }
      bytes_ += need * sizeof(float);
      activation = std::make_unique<Activation>();
      activation->values = Buffer<float>(need);
    }
    activation->rows = rows;
    activation->cols = cols;
    return Act(activation.release(), [this](Activation* a) {
      const size_t size = a->values.size();
      free_.emplace_hint(free_.lower_bound(size), size, std::unique_ptr<Activation>(a));  // taken next, while warm
    });
  }
  size_t bytes() const { return bytes_; }  // of all buffers, handed out or not

 private:
  std::multimap<size_t, std::unique_ptr<Activation>> free_;  // by capacity in floats
  size_t bytes_ = 0;
};

}  // namespace thimble
