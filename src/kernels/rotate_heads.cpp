#include "kernels/rotate_heads.h"

#include "kernels/simd.h"

namespace thimble {
namespace {
using simd::F32;
using simd::kLanes;

// Sums and differences of lanes that stand `other - lane` apart; sign is -1 in those that subtract.
#define THIMBLE_BUTTERFLY(x, sign, ...) ((x) * (sign) + __builtin_shufflevector((x), (x), __VA_ARGS__))

[[gnu::always_inline]] inline F32 rotate_lanes(F32 x) {
  const F32 by_1{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1};
  const F32 by_2{1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1};
  const F32 by_4{1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1};
  const F32 by_8{1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
  x = THIMBLE_BUTTERFLY(x, by_1, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  x = THIMBLE_BUTTERFLY(x, by_2, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  x = THIMBLE_BUTTERFLY(x, by_4, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  return THIMBLE_BUTTERFLY(x, by_8, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
}
#undef THIMBLE_BUTTERFLY

// `vectors`, a power of two, of 16 elements.
[[gnu::always_inline]] inline void rotate(float* x, int vectors, float scale) {
  for (int v = 0; v < vectors; ++v) simd::store(x + v * kLanes, rotate_lanes(simd::load(x + v * kLanes)) * scale);
  for (int apart = 1; apart < vectors; apart *= 2)
    for (int v = 0; v < vectors; ++v) {
      if ((v & apart) != 0) continue;
      float* const first = x + v * kLanes;
      float* const second = first + apart * kLanes;
      const F32 a = simd::load(first), b = simd::load(second);
      simd::store(first, a + b);
      simd::store(second, a - b);
    }
}

}  // namespace

void rotate_heads(float* x, int64_t heads, int head_dim) {
  simd::with_simd([&]() __attribute__((always_inline)) {
    for (int64_t h = 0; h < heads; ++h, x += head_dim) {
      int done = 0;
      for (int left = head_dim / static_cast<int>(kLanes); left > 0;) {
        int vectors = 1;
        float scale = 0.25f;  // 1 / sqrt(16 · vectors)
        while (2 * vectors <= left) vectors *= 2, scale *= 0.70710678f;
        rotate(x + done * kLanes, vectors, scale);
        done += vectors;
        left -= vectors;
      }
    }
  });
}

}  // namespace thimble
