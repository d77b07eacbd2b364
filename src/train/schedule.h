#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

namespace thimble {

enum class Decay { kConstant, kLinear, kCosine };

// Learning rate over a run: linear warm-up, then constant or a decay that would reach zero one step after the last.
struct Schedule {
  double peak = 0;
  int warmup_steps = 0;
  int total_steps = 0;
  Decay decay = Decay::kCosine;
};

inline double learning_rate(const Schedule& s, int step) {  // step counts from 0; never zero within the run
  if (step < s.warmup_steps) return s.peak * (step + 1) / s.warmup_steps;
  const double share =
      std::clamp(static_cast<double>(step - s.warmup_steps) / std::max(1, s.total_steps - s.warmup_steps), 0.0, 1.0);
  switch (s.decay) {
    case Decay::kConstant:
      return s.peak;
    case Decay::kLinear:
      return s.peak * (1 - share);
    case Decay::kCosine:
      return s.peak * 0.5 * (1 + std::cos(std::numbers::pi * share));
  }
  return s.peak;
}

}  // namespace thimble
