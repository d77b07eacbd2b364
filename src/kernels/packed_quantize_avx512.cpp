#include "kernels/packed_layout.h"

#if defined(__x86_64__)
// GCC 12's own _mm512_undefined_* read what they do not set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/simd.h"
#include "kernels/target.h"

// What packed_quantize.cpp does, for 16 groups at a time: their largest magnitudes and sums end in the lanes of one
// register, so that what follows from them is computed once for all. Items are groups in the order of the results,
// item g * rows + row. The results are the same to the bit.
namespace thimble::packed {
namespace {

struct Group {
  __m512 lower, upper;  // elements 0-15 and 16-31
};

// kRows as laid out, so that items are taken apart without divisions.
template <int kRows>
struct Activations {
  const float* x = nullptr;
  int64_t in = 0;
  int valid = 0;

  THIMBLE_AVX512 __attribute__((always_inline)) Group group(int64_t item) const {
    const int64_t g = item / kRows, row = item % kRows, k = g * kGroup;
    if (row >= valid) return {_mm512_setzero_ps(), _mm512_setzero_ps()};
    const float* from = x + row * in + k;
    if (k + kGroup <= in) [[likely]] return {_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)};
    const auto mask = static_cast<uint32_t>((uint64_t{1} << std::clamp<int64_t>(in - k, 0, kGroup)) - 1);
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from),
            _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16)};
  }
};

// Lane i of the result: all lanes of v[i], brought together by op.
template <class Op>
THIMBLE_AVX512_INLINE __m512i reduce(__m512i v[16], const Op& op) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    v[i] = op(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    v[i] = op(_mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 3
  for (int count = 2; count > 0; count /= 2)
#pragma GCC unroll 2
    for (int i = 0; i < count; ++i)
      v[i] = op(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x88), _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xdd));
  return v[0];
}

struct Add {
  THIMBLE_AVX512 __attribute__((always_inline)) __m512i operator()(__m512i a, __m512i b) const {
    return _mm512_add_epi32(a, b);
  }
};
// Of floats without signs; their bits are ordered as they are.
struct Max {
  THIMBLE_AVX512 __attribute__((always_inline)) __m512i operator()(__m512i a, __m512i b) const {
    return _mm512_max_epu32(a, b);
  }
};

// To the nearest integer, even where two are, of the exact product: adding 1.5 * 2^23 leaves it in the low bits.
THIMBLE_AVX512_INLINE __m512i round_product(__m512 x, __m512 factor) {
  const __m512 magic = _mm512_set1_ps(0x1.8p23f);
  return _mm512_sub_epi32(_mm512_castps_si512(_mm512_fmadd_ps(x, factor, magic)), _mm512_castps_si512(magic));
}

THIMBLE_AVX512_INLINE void store_bytes(int8_t* to, __m512i x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(x));
}

// Above it a group of the row stands out.
THIMBLE_AVX512 float threshold(const float* row, int64_t in) {
  simd::F32 squares{};
  for (int64_t g = 0; g < group_count(in); ++g) {
    const Group group = Activations<1>{row, in, 1}.group(g);
    squares = _mm512_fmadd_ps(group.lower, group.lower, squares);
    squares = _mm512_fmadd_ps(group.upper, group.upper, squares);
  }
  return kOutlier * std::sqrt(simd::sum(squares) / static_cast<float>(in));
}

__mmask16 lanes(int64_t count) { return static_cast<__mmask16>((1u << std::min<int64_t>(16, count)) - 1); }

// Sums in the unit of the items' scale.
THIMBLE_AVX512_INLINE __m512i in_unit(__m512i sums, __mmask16 widened) {
  return _mm512_mask_slli_epi32(sums, widened, sums, 8);
}

template <int kRows>
THIMBLE_AVX512 void quantize(const float* x, int64_t in, bool all_fine, const QuantizedTile& out) {
  const Activations<kRows> activations{x, in, out.valid};
  const int64_t groups = group_count(in), items = groups * kRows;
  // Of the rows over and over, so that 16 items find theirs from any row on.
  alignas(64) float thresholds[kMaxRows + 16];
  for (int row = 0; row < kMaxRows + 16; ++row) {
    if (row >= kRows) thresholds[row] = thresholds[row - kRows];
    else if (row >= out.valid) thresholds[row] = std::numeric_limits<float>::infinity();
    else thresholds[row] = all_fine ? -1.0f : threshold(x + row * in, in);
  }

  std::memset(out.fine, 0, static_cast<size_t>(groups));
  for (int64_t first = 0; first < items; first += 16) {
    const __mmask16 mask = lanes(items - first);
    const int count = std::popcount(static_cast<unsigned>(mask));
    __m512i v[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      v[i] = _mm512_setzero_si512();
      if (i >= count) continue;
      const Group group = activations.group(first + i);
      v[i] = _mm512_castps_si512(_mm512_max_ps(_mm512_abs_ps(group.lower), _mm512_abs_ps(group.upper)));
    }
    __m512 largest = _mm512_castsi512_ps(reduce(v, Max()));
    largest = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(largest, _mm512_set1_ps(kTiny), _CMP_NLT_UQ), largest);
    _mm512_mask_storeu_ps(out.scale + first, mask, largest);
    unsigned outliers = _mm512_mask_cmp_ps_mask(mask, largest, _mm512_loadu_ps(thresholds + first % kRows),
                                                _CMP_GT_OQ);
    for (; outliers != 0; outliers &= outliers - 1) {
      const int64_t item = first + std::countr_zero(outliers);
      out.fine[item / kRows] |= static_cast<uint8_t>(1 << (item % kRows / kSubset));
    }
  }

  for (int64_t first = 0; first < items; first += 16) {
    const __mmask16 mask = lanes(items - first);
    const int count = std::popcount(static_cast<unsigned>(mask));
    const __m512 largest = _mm512_maskz_loadu_ps(mask, out.scale + first);
    const __mmask16 outliers =
        _mm512_mask_cmp_ps_mask(mask, largest, _mm512_loadu_ps(thresholds + first % kRows), _CMP_GT_OQ);
    unsigned fine = 0;
    for (int i = 0; i < count; ++i) {
      const int64_t g = (first + i) / kRows, row = (first + i) % kRows;
      fine |= ((out.fine[g] >> (row / kSubset)) & 1u) << i;
    }
    const __m512 top = _mm512_mask_mov_ps(_mm512_set1_ps(kCoarseTop), outliers, _mm512_set1_ps(kFineTop));
    alignas(64) float inverse[16];
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(_mm512_cmp_ps_mask(largest, _mm512_setzero_ps(), _CMP_GT_OQ), top,
                                                 largest));
    __m512i both[16], lower[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      both[i] = lower[i] = _mm512_setzero_si512();
      if (i >= count) continue;
      const Group group = activations.group(first + i);
      const __m512 factor = _mm512_set1_ps(inverse[i]);
      const __m512i q[2] = {round_product(group.lower, factor), round_product(group.upper, factor)};
      lower[i] = q[0];
      both[i] = _mm512_add_epi32(q[0], q[1]);
      int8_t* high = out.high + (first + i) * kGroup;
      if (((fine >> i) & 1) == 0) [[likely]] {
        store_bytes(high, q[0]);
        store_bytes(high + 16, q[1]);
        continue;
      }
      const bool outlier = (outliers >> i) & 1;
      int8_t* low = out.low + (first + i) * kGroup;
      for (int half = 0; half < 2; ++half) {
        const __m512i top_byte =
            outlier ? _mm512_srai_epi32(_mm512_add_epi32(q[half], _mm512_set1_epi32(128)), 8) : q[half];
        store_bytes(high + 16 * half, top_byte);
        store_bytes(low + 16 * half, outlier ? _mm512_sub_epi32(q[half], _mm512_slli_epi32(top_byte, 8))
                                             : _mm512_setzero_si512());
      }
    }
    // A row in one byte within a fine subset counts in the subset's unit: 256 times finer, exactly.
    const auto widened = static_cast<__mmask16>(fine & ~outliers);
    const __m512i total = in_unit(reduce(both, Add()), widened);
    __m512 scale = _mm512_div_ps(largest, top);
    scale = _mm512_mask_mul_ps(scale, widened, scale, _mm512_set1_ps(1.0f / 256));
    _mm512_mask_storeu_ps(out.scale + first, mask, scale);
    _mm512_mask_storeu_ps(out.sum + first, mask, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(total)));
    _mm512_mask_storeu_epi32(out.correction + first, mask, _mm512_mullo_epi32(total, _mm512_set1_epi32(-8)));
    if (out.halves == nullptr) continue;
    const __m512i total_lower = in_unit(reduce(lower, Add()), widened);
    alignas(64) int32_t halves[2][16];
    _mm512_store_si512(halves[0], _mm512_mullo_epi32(total_lower, _mm512_set1_epi32(-32)));
    _mm512_store_si512(halves[1], _mm512_mullo_epi32(_mm512_sub_epi32(total, total_lower), _mm512_set1_epi32(-32)));
    for (int i = 0; i < count; ++i) {
      const int64_t g = (first + i) / kRows, row = (first + i) % kRows;
      for (int half = 0; half < 2; ++half) out.halves[(2 * g + half) * kRows + row] = halves[half][i];
    }
  }
}

}  // namespace

void quantize_rows_avx512(const float* x, int64_t in, bool all_fine, const QuantizedTile& out) {
  switch (out.rows) {
    case 1: return quantize<1>(x, in, all_fine, out);
    case 2: return quantize<2>(x, in, all_fine, out);
    case 3: return quantize<3>(x, in, all_fine, out);
    case 4: return quantize<4>(x, in, all_fine, out);
    case 6: return quantize<6>(x, in, all_fine, out);
    case 8: return quantize<8>(x, in, all_fine, out);
    case 12: return quantize<12>(x, in, all_fine, out);
    default: return quantize<16>(x, in, all_fine, out);
  }
}

}  // namespace thimble::packed

#else
namespace thimble::packed {
void quantize_rows_avx512(const float*, int64_t, bool, const QuantizedTile&) {}
}  // namespace thimble::packed
#endif
