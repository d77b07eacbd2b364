#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/packed_layout.h"
#include "kernels/simd.h"

namespace thimble::packed {
namespace {
using simd::F32;
using simd::I32;
using simd::kLanes;

// Sixteen elements of a row, zeros past its end.
[[gnu::always_inline]] inline F32 load(const float* row, int64_t in, int64_t k) {
  if (k + kLanes <= in) return simd::load(row + k);
  return k < in ? simd::load(row + k, in - k) : F32{};
}

[[gnu::always_inline]] inline F32 magnitude(F32 x) { return simd::max(x, -x); }

// To the nearest integer, even where two are: adding 1.5 * 2^23 leaves it in the low bits. For |x| < 2^22.
[[gnu::always_inline]] inline I32 round(F32 x) {
  const F32 magic = simd::set(0x1.8p23f);
  return reinterpret_cast<I32>(x + magic) - reinterpret_cast<I32>(magic);
}

[[gnu::always_inline]] inline void store_bytes(int8_t* to, I32 x) {
  using Bytes = int8_t __attribute__((vector_size(16)));
  const Bytes bytes = __builtin_convertvector(x, Bytes);
  std::memcpy(to, &bytes, sizeof bytes);
}

// Halves of halves: a few shuffles, where a loop over lanes would go through memory.
typedef float F32x8 __attribute__((vector_size(32)));
typedef float F32x4 __attribute__((vector_size(16)));
typedef int32_t I32x8 __attribute__((vector_size(32)));
typedef int32_t I32x4 __attribute__((vector_size(16)));

[[gnu::always_inline]] inline float largest_lane(F32 x) {
  const F32x8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
  const F32x8 b = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  const F32x8 c = a > b ? a : b;
  const F32x4 d = __builtin_shufflevector(c, c, 0, 1, 2, 3), e = __builtin_shufflevector(c, c, 4, 5, 6, 7);
  const F32x4 f = d > e ? d : e;
  const F32x4 g = __builtin_shufflevector(f, f, 2, 3, 0, 1);
  const F32x4 h = f > g ? f : g;
  return h[0] > h[1] ? h[0] : h[1];
}

[[gnu::always_inline]] inline int32_t sum(I32 x) {
  const I32x8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
                  __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  const I32x4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
  const I32x4 c = b + __builtin_shufflevector(b, b, 2, 3, 0, 1);
  return c[0] + c[1];
}

// Rows [first, last), which share the choice of one or two bytes.
[[gnu::always_inline]] inline void quantize_subset(const float* x, int64_t in, bool all_fine, const QuantizedTile& out,
                                                   int first, int last) {
  const int64_t groups = group_count(in);
  // Every group's largest magnitude, kept where its scale will be, and what stands out of the row.
  float threshold[kSubset] = {};
  for (int row = first; row < last; ++row) {
    F32 squares{};
    for (int64_t g = 0; g < groups; ++g) {
      float largest = 0;
      if (row < out.valid) {
        const F32 lower = load(x + row * in, in, g * kGroup), upper = load(x + row * in, in, g * kGroup + kLanes);
        squares += lower * lower;
        squares += upper * upper;
        largest = largest_lane(simd::max(magnitude(lower), magnitude(upper)));
      }
      out.scale[g * out.rows + row] = largest < kTiny ? 0.0f : largest;
    }
    const float mean = simd::sum(squares) / static_cast<float>(in);
    threshold[row - first] = all_fine ? -1.0f : kOutlier * __builtin_sqrtf(mean);
  }
  const auto bit = static_cast<uint8_t>(1 << (first / kSubset));
  for (int64_t g = 0; g < groups; ++g) {
    bool fine = false;
    for (int row = first; row < last; ++row)
      fine |= row < out.valid && out.scale[g * out.rows + row] > threshold[row - first];
    out.fine[g] = static_cast<uint8_t>((first == 0 ? 0 : out.fine[g]) | (fine ? bit : 0));
    for (int row = first; row < last; ++row) {
      const int64_t at = g * out.rows + row;
      const float largest = out.scale[at];
      const bool outlier = row < out.valid && largest > threshold[row - first];
      const float top = outlier ? kFineTop : kCoarseTop;
      I32 q[2] = {};
      if (largest > 0)
        for (int half = 0; half < 2; ++half)
          q[half] = round(load(x + row * in, in, g * kGroup + half * kLanes) * (top / largest));
      // A row in one byte within a fine subset counts in the subset's unit: 256 times finer, exactly.
      const int32_t widened = fine && !outlier ? 256 : 1;
      for (int half = 0; half < 2; ++half) {
        const I32 high = outlier ? (q[half] + 128) >> 8 : q[half];
        store_bytes(out.high + at * kGroup + half * kLanes, high);
        if (fine) store_bytes(out.low + at * kGroup + half * kLanes, outlier ? q[half] - (high << 8) : I32{});
      }
      const int32_t total = sum(q[0] + q[1]) * widened;
      out.scale[at] = largest / top / static_cast<float>(widened);
      out.sum[at] = out.scale[at] * static_cast<float>(total);
      out.correction[at] = -8 * total;
      if (out.halves != nullptr)
        for (int half = 0; half < 2; ++half) out.halves[(2 * g + half) * out.rows + row] = -32 * widened * sum(q[half]);
    }
  }
}

}  // namespace

void quantize_rows(const float* x, int64_t in, bool all_fine, const QuantizedTile& out) {
  simd::with_simd([&]() __attribute__((always_inline)) {
    for (int first = 0; first < out.rows; first += kSubset)
      quantize_subset(x, in, all_fine, out, first, std::min(first + kSubset, out.rows));
  });
}

}  // namespace thimble::packed
