#include <algorithm>
#include <limits>

#include "core/cpu.h"
#include "kernels/attention_block.h"
#include "kernels/simd.h"

#if defined(__x86_64__)
// GCC 12's own _mm512_undefined_* read what they do not set.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

namespace thimble::attention {
namespace {
using simd::F32;
using simd::kLanes;

constexpr int kVectors = kKeys / static_cast<int>(kLanes);

// Zeros, then minus infinities: what is added to scores, read from a place that puts the edge where it belongs.
struct Edges {
  float upper[2 * kKeys];  // seen below the edge
  float lower[2 * kKeys];  // seen from the edge on
  constexpr Edges() : upper(), lower() {
    for (int i = 0; i < 2 * kKeys; ++i) {
      upper[i] = i < kKeys ? 0.0f : -std::numeric_limits<float>::infinity();
      lower[i] = i < kKeys ? -std::numeric_limits<float>::infinity() : 0.0f;
    }
  }
};
constexpr Edges kEdges;

[[gnu::always_inline]] inline void soften_row(float* scores, int first, int last, const float* key_scales,
                                              const float* value_scales, float* top, float* total, float* scale) {
  F32 s[kVectors];
  F32 largest = F32{} + *top;
  for (int v = 0; v < kVectors; ++v) {
    s[v] = simd::load(scores + v * kLanes);
    if (key_scales != nullptr) s[v] *= simd::load(key_scales + v * kLanes);
    s[v] = s[v] + simd::load(kEdges.upper + kKeys - last + v * kLanes) +
           simd::load(kEdges.lower + kKeys - first + v * kLanes);
    largest = simd::max(largest, s[v]);
  }
  const float now = simd::max(largest);
  F32 sum{};
  for (int v = 0; v < kVectors; ++v) {
    s[v] = simd::exp(s[v] - now);
    sum += s[v];
    if (value_scales != nullptr) s[v] *= simd::load(value_scales + v * kLanes);
    simd::store(scores + v * kLanes, s[v]);
  }
  *scale = *top == now ? 1.0f : simd::exp(F32{} + (*top - now))[0];
  *top = now;
  simd::store(total, simd::load(total) * *scale + sum);
}

#if defined(__x86_64__)
#define THIMBLE_SOFTEN_512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))

// exp(x) for x <= 0 to about 1e-7 relative; 0 where the result would be below the smallest float.
THIMBLE_SOFTEN_512 __attribute__((always_inline)) inline __m512 exp_512(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-110.0f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);  // n * ln 2 in two parts
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);  // Cephes' polynomial
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

THIMBLE_SOFTEN_512 void soften_512(float* scores, int rows, const int* first, const int* last, const float* key_scales,
                                   const float* value_scales, float* top, float* total, float* scale) {
  for (int r = 0; r < rows; ++r) {
    float* row = scores + r * kKeys;
    __m512 s[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) s[v] = _mm512_loadu_ps(row + 16 * v);
    if (key_scales != nullptr) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) s[v] = _mm512_mul_ps(s[v], _mm512_loadu_ps(key_scales + 16 * v));
    }
    if (first[r] > 0 || last[r] < kKeys) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        s[v] = _mm512_add_ps(s[v], _mm512_loadu_ps(kEdges.upper + kKeys - last[r] + 16 * v));
        s[v] = _mm512_add_ps(s[v], _mm512_loadu_ps(kEdges.lower + kKeys - first[r] + 16 * v));
      }
    }
    const __m512 before = _mm512_set1_ps(top[r]);
    const float largest = _mm512_reduce_max_ps(
        _mm512_max_ps(_mm512_max_ps(s[0], s[1]), _mm512_max_ps(_mm512_max_ps(s[2], s[3]), before)));
    const __m512 now = _mm512_set1_ps(largest);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) s[v] = exp_512(_mm512_sub_ps(s[v], now));
    const __m512 older = exp_512(_mm512_sub_ps(before, now));
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3]));
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      if (value_scales != nullptr) s[v] = _mm512_mul_ps(s[v], _mm512_loadu_ps(value_scales + 16 * v));
      _mm512_storeu_ps(row + 16 * v, s[v]);
    }
    _mm512_storeu_ps(total + 16 * r, _mm512_fmadd_ps(_mm512_loadu_ps(total + 16 * r), older, sum));
    top[r] = largest;
    scale[r] = _mm512_cvtss_f32(older);
  }
}
#endif

}  // namespace

void soften(float* scores, int rows, const int* first, const int* last, const float* key_scales,
            const float* value_scales, float* top, float* total, float* scale) {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::kAvx512)
    return soften_512(scores, rows, first, last, key_scales, value_scales, top, total, scale);
#endif
  simd::with_simd([&]() __attribute__((always_inline)) {
    for (int r = 0; r < rows; ++r)
      soften_row(scores + r * kKeys, first[r], last[r], key_scales, value_scales, top + r, total + r * kLanes,
                 scale + r);
  });
}

}  // namespace thimble::attention
