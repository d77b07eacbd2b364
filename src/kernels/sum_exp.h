#pragma once

#include <cstdint>

#include "kernels/simd.h"

namespace thimble::simd {

// logits[vocab], each times `scale` (above 0) -> the largest of them, and the sum of exp(logit - largest)
[[gnu::always_inline]] inline float sum_exp(const float* logits, int64_t vocab, float* largest, float scale = 1) {
  float top = logits[0];
  int64_t i = 0;
  if (vocab >= kLanes) {
    F32 tops = load(logits);
    for (; i + kLanes <= vocab; i += kLanes) tops = max(tops, load(logits + i));
    top = max(tops);
  }
  for (; i < vocab; ++i) top = logits[i] > top ? logits[i] : top;
  F32 sums{};
  for (i = 0; i + kLanes <= vocab; i += kLanes) sums += exp((load(logits + i) - top) * scale);
  float total = sum(sums);
  if (i < vocab) {
    const F32 e = exp((load(logits + i, vocab - i) - top) * scale);
    for (int64_t l = 0; l < vocab - i; ++l) total += e[l];
  }
  *largest = top * scale;
  return total;
}

}  // namespace thimble::simd
