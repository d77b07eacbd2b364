#include "kernels/logits.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "kernels/simd.h"

namespace thimble {
namespace {
using simd::F32;
using simd::I32;
using simd::kLanes;

constexpr float kNever = -std::numeric_limits<float>::infinity();

bool is_allowed(std::span<const uint32_t> allowed, int64_t token) {
  return allowed.empty() || ((allowed[static_cast<size_t>(token / 32)] >> (token % 32)) & 1) != 0;
}

// Logits [first, first + 16) with what must not be chosen at minus infinity; past the end too.
[[gnu::always_inline]] inline F32 masked(std::span<const float> logits, std::span<const uint32_t> allowed,
                                         int64_t first) {
  const I32 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto left = static_cast<int64_t>(logits.size()) - first;
  F32 x = left >= kLanes ? simd::load(logits.data() + first) : simd::load(logits.data() + first, left);
  const F32 never = F32{} + kNever;
  if (left < kLanes) x = lane < static_cast<int>(left) ? x : never;
  if (!allowed.empty()) {
    const auto bits = static_cast<int32_t>(allowed.data()[first / 32] >> (first % 32));
    x = ((bits >> lane) & 1) != 0 ? x : never;
  }
  return x == x ? x : never;
}

// The largest allowed logit.
float largest(std::span<const float> logits, std::span<const uint32_t> allowed) {
  float result = kNever;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 top = F32{} + kNever;
    for (int64_t i = 0; i < static_cast<int64_t>(logits.size()); i += kLanes)
      top = simd::max(masked(logits, allowed, i), top);
    result = simd::max(top);
  });
  return result;
}

}  // namespace

int32_t argmax(std::span<const float> logits, std::span<const uint32_t> allowed) {
  assert(allowed.empty() || allowed.size() * 32 >= logits.size());
  const float top = largest(logits, allowed);
  int32_t found = -1;
  for (size_t i = 0; i < logits.size() && found < 0; ++i)
    if (logits[i] == top && is_allowed(allowed, static_cast<int64_t>(i))) found = static_cast<int32_t>(i);
  return found;
}

float log_sum_exp(std::span<const float> logits, std::span<const uint32_t> allowed) {
  const float top = largest(logits, allowed);
  if (top == kNever) return kNever;
  float total = 0;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 sum{};
    for (int64_t i = 0; i < static_cast<int64_t>(logits.size()); i += kLanes)
      sum += simd::exp(masked(logits, allowed, i) - top);
    total = simd::sum(sum);
  });
  return top + std::log(total);
}

void log_softmax(std::span<const float> logits, float* out) {
  const float total = log_sum_exp(logits);
  for (size_t i = 0; i < logits.size(); ++i) out[i] = logits[i] - total;
}

std::vector<Candidate> top_k(std::span<const float> logits, int64_t k, std::span<const uint32_t> allowed) {
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  std::vector<Candidate> best;  // a heap: the least likely of the best k stands in front
  if (k <= 0) return best;
  float bar = kNever;
  for (int64_t first = 0; first < static_cast<int64_t>(logits.size()); first += 64) {
    const int64_t last = std::min<int64_t>(first + 64, static_cast<int64_t>(logits.size()));
    // Most stretches hold nothing that would get in: look at their largest logit before their tokens.
    float top = kNever;
    for (int64_t i = first; i < last; ++i)
      top = logits[static_cast<size_t>(i)] > top ? logits[static_cast<size_t>(i)] : top;
    if (static_cast<int64_t>(best.size()) == k && !(top > bar)) continue;
    for (int64_t i = first; i < last; ++i) {
      const Candidate candidate{static_cast<int32_t>(i), logits[static_cast<size_t>(i)]};
      if (!(candidate.logit > kNever) || !is_allowed(allowed, i)) continue;
      if (static_cast<int64_t>(best.size()) == k) {
        if (!before(candidate, best.front())) continue;
        std::pop_heap(best.begin(), best.end(), before);
        best.back() = candidate;
      } else {
        best.push_back(candidate);
      }
      std::push_heap(best.begin(), best.end(), before);
      if (static_cast<int64_t>(best.size()) == k) bar = best.front().logit;
    }
  }
  std::sort_heap(best.begin(), best.end(), before);
  return best;
}

}  // namespace thimble
