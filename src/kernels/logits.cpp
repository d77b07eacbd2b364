#include "kernels/logits.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/simd.h"

namespace thimble {
namespace {
using simd::F32;
using simd::I32;
using simd::kLanes;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNever = -kInfinity;

// Logits [first, first + 16) with what must not be chosen at minus infinity; past the end too.
[[gnu::always_inline]] inline F32 masked(std::span<const float> logits, std::span<const uint32_t> allowed,
                                         int64_t first) {
  const I32 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto left = static_cast<int64_t>(logits.size()) - first;
  F32 x = left >= kLanes ? simd::load(logits.data() + first) : simd::load(logits.data() + first, left);
  const F32 never = F32{} + kNever;
  if (left < kLanes) x = simd::select((lane - static_cast<int>(left)) >> 31, x, never);
  if (!allowed.empty()) {
    const auto bits = static_cast<int32_t>(allowed.data()[first / 32] >> (first % 32));
    x = simd::select(-((bits >> lane) & 1), x, never);
  }
  const I32 not_a_number = (0x7f800000 - (reinterpret_cast<I32>(x) & 0x7fffffff)) >> 31;
  return simd::select(not_a_number, never, x);
}

// Calls body(stretch, first, last) for every stretch [first, last).
template <class Body>
[[gnu::always_inline]] inline void each_stretch(std::span<const float> logits, const Body& body) {
  const auto count = static_cast<int64_t>(logits.size()), step = static_cast<int64_t>(kStretch);
  for (int64_t first = 0, stretch = 0; first < count; first += step, ++stretch)
    body(stretch, first, first + step < count ? first + step : count);
}

size_t stretches(std::span<const float> logits) { return (logits.size() + kStretch - 1) / kStretch; }

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

void stretch_tops(std::span<const float> logits, std::span<const uint32_t> allowed, std::vector<float>& tops) {
  assert(allowed.empty() || allowed.size() * 32 >= logits.size());
  tops.resize(stretches(logits));
  float* const out = tops.data();
  simd::with_simd([&]() __attribute__((always_inline)) {
    each_stretch(logits, [&](int64_t stretch, int64_t first, int64_t last) __attribute__((always_inline)) {
      F32 top = F32{} + kNever;
      for (int64_t i = first; i < last; i += kLanes) top = simd::max(masked(logits, allowed, i), top);
      out[stretch] = simd::max(top);
    });
  });
}

void collect(std::span<const float> logits, std::span<const uint32_t> allowed, std::span<const float> tops, float low,
             float high, std::vector<Candidate>& out) {
  assert(tops.size() == stretches(logits));
  each_stretch(logits, [&](int64_t stretch, int64_t first, int64_t last) {
    const float top = tops[static_cast<size_t>(stretch)];
    if (!(top >= low) || top == kNever) return;
    for (int64_t i = first; i < last; ++i) {
      const float x = logits[static_cast<size_t>(i)];
      if (x >= low && x <= high && x > kNever && is_allowed(allowed, i)) out.push_back({static_cast<int32_t>(i), x});
    }
  });
}

void stretch_weights(std::span<const float> logits, std::span<const uint32_t> allowed, float top, float scale,
                     std::vector<float>& sums) {
  sums.resize(stretches(logits));
  float* const out = sums.data();
  simd::with_simd([&]() __attribute__((always_inline)) {
    each_stretch(logits, [&](int64_t stretch, int64_t first, int64_t last) __attribute__((always_inline)) {
      F32 sum{};
      for (int64_t i = first; i < last; i += kLanes) sum += simd::exp((masked(logits, allowed, i) - top) * scale);
      out[stretch] = simd::sum(sum);
    });
  });
}

float weight_within(std::span<const float> logits, std::span<const uint32_t> allowed, std::span<const float> tops,
                    float top, float low, float high) {
  assert(tops.size() == stretches(logits));
  float total = 0;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 sum{};
    each_stretch(logits, [&](int64_t stretch, int64_t first, int64_t last) __attribute__((always_inline)) {
      if (!(tops.data()[stretch] >= low)) return;
      for (int64_t i = first; i < last; i += kLanes) {
        const F32 x = masked(logits, allowed, i);
        const I32 outside = simd::less(x, simd::set(low)) | simd::less(simd::set(high), x);
        sum += simd::select(outside, F32{}, simd::exp(x - top));
      }
    });
    total = simd::sum(sum);
  });
  return total;
}

float mean_logit(std::span<const float> logits, std::span<const uint32_t> allowed, float top) {
  float weights = 0, below = 0;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 weight_sum{}, below_sum{};
    for (int64_t i = 0; i < static_cast<int64_t>(logits.size()); i += kLanes) {
      const F32 x = masked(logits, allowed, i) - top;
      const F32 weight = simd::exp(x);
      weight_sum += weight;
      below_sum += weight * simd::max(x, simd::set(-1000.0f));  // 0 times minus infinity would be no number
    }
    weights = simd::sum(weight_sum);
    below = simd::sum(below_sum);
  });
  return top + below / weights;
}

int32_t argmax(std::span<const float> logits, std::span<const uint32_t> allowed) {
  const auto count = static_cast<int64_t>(logits.size());
  std::vector<float> tops;
  stretch_tops(logits, allowed, tops);
  if (tops.empty()) return -1;
  const auto best = std::max_element(tops.begin(), tops.end());
  for (int64_t i = (best - tops.begin()) * static_cast<int64_t>(kStretch); i < count; ++i)
    if (logits[static_cast<size_t>(i)] == *best && is_allowed(allowed, i)) return static_cast<int32_t>(i);
  return -1;
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
  std::vector<float> tops;
  stretch_tops(logits, allowed, tops);
  return top_k(logits, k, allowed, tops);
}

std::vector<Candidate> top_k(std::span<const float> logits, int64_t k, std::span<const uint32_t> allowed,
                             std::span<const float> tops) {
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  std::vector<Candidate> best;
  if (k <= 0 || logits.empty()) return best;
  // The k-th largest of the stretches' tops is a bar that at least k tokens reach, and few others.
  const auto wanted = static_cast<size_t>(std::min<int64_t>(k, static_cast<int64_t>(logits.size())));
  if (wanted <= tops.size()) {
    std::vector<float> ranked(tops.begin(), tops.end());
    const auto bar = ranked.begin() + static_cast<std::ptrdiff_t>(wanted - 1);
    std::nth_element(ranked.begin(), bar, ranked.end(), std::greater<>());
    collect(logits, allowed, tops, *bar, kInfinity, best);
  } else {
    const float top = *std::max_element(tops.begin(), tops.end());
    for (float reach = 4; best.size() < wanted; reach = reach < 64 ? 2 * reach : kInfinity) {
      best.clear();
      collect(logits, allowed, tops, reach < kInfinity ? top - reach : kNever, kInfinity, best);
      if (reach == kInfinity) break;
    }
  }
  const auto kept = static_cast<std::ptrdiff_t>(std::min(best.size(), wanted));
  std::nth_element(best.begin(), best.begin() + kept, best.end(), before);
  best.resize(static_cast<size_t>(kept));
  std::sort(best.begin(), best.end(), before);
  return best;
}

}  // namespace thimble
