#include "models/rope_frequencies.h"

#include <fmt/core.h>

#include <cmath>
#include <numbers>

#include "core/error.h"

namespace thimble {

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const int half = config.head_dim / 2;
  std::vector<float> out(static_cast<size_t>(half));
  for (int i = 0; i < half; ++i) {
    double frequency = std::pow(static_cast<double>(config.rope_theta), -2.0 * i / config.head_dim);
    if (!config.rope_factors.empty()) {
      frequency /= config.rope_factors.at(static_cast<size_t>(i));
    } else if (config.rope_scaling) {
      const RopeScaling& s = *config.rope_scaling;
      if (s.type == "linear") {
        frequency /= s.factor;
      } else if (s.type == "llama3") {
        const double wavelength = 2 * std::numbers::pi / frequency;
        const double low = s.original_context / s.low_freq_factor;    // longer waves are slowed down
        const double high = s.original_context / s.high_freq_factor;  // shorter ones are kept
        if (wavelength > low) {
          frequency /= s.factor;
        } else if (wavelength > high) {
          const double smooth =
              (s.original_context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
          frequency = (1 - smooth) * frequency / s.factor + smooth * frequency;
        }
      } else {
        throw Error(fmt::format("config: rope_scaling type '{}' is not supported; known: linear, llama3", s.type));
      }
    }
    out[static_cast<size_t>(i)] = static_cast<float>(frequency);
  }
  return out;
}

}  // namespace thimble
