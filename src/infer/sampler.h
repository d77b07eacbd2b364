#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"

namespace thimble {

struct SamplingOptions {
  float temperature = 0;  // 0: greedy, the most likely token
  int top_k = 0;          // > 0: only the k most likely
  float top_p = 1;        // < 1: only the smallest set with that much probability (Holtzman et al. 2019)
  float min_p = 0;        // > 0: only tokens at least this likely, relative to the best (arXiv 2407.01082)
  uint64_t seed = 0;
};

// Whether a mask as constraints set it lets token i pass; an empty one lets all.
inline bool permitted(std::span<const uint32_t> allowed, size_t i) {
  return allowed.empty() || ((allowed[i / 32] >> (i % 32)) & 1u) != 0;
}

// Throws Error naming the option that is out of its range.
void check(const SamplingOptions& options);

// Chooses one token a call. The same seed and logits give the same tokens on every machine.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

  // logits [vocab]; allowed: one bit a token, or empty for all. Filters apply in the order top-k, top-p, min-p,
  // all on the distribution after temperature. At least one token must be allowed.
  int32_t sample(std::span<const float> logits, std::span<const uint32_t> allowed);

 private:
  SamplingOptions options_;
  Random random_;
  std::vector<std::pair<float, int32_t>> candidates_;  // kept to save allocations
};

}  // namespace thimble
