#pragma once

namespace thimble {

// Exponential mean over about the last ten values, without the start's bias (as Adam corrects its own): the loss as it
// is shown, drawn and watched.
class Smoothed {
 public:
  void add(double value) {
    sum_ = 0.9 * sum_ + 0.1 * value;
    weight_ = 0.9 * weight_ + 0.1;
  }
  double value() const { return weight_ > 0 ? sum_ / weight_ : 0; }

 private:
  double sum_ = 0, weight_ = 0;
};

}  // namespace thimble
