#include "kernels/packed_layout.h"

#if defined(__x86_64__)
// GCC 12's own _mm512_undefined_* read what they do not set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "kernels/target.h"

namespace thimble::packed {
namespace {

THIMBLE_AVX512_INLINE __m512 halves_to_floats(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// The codes of group g as eight registers: register j holds elements 4 j .. 4 j + 3 of 16 lanes.
template <PackedKind kKind>
THIMBLE_AVX512_INLINE void load_codes(const std::byte* unit, int64_t g, __m512i w[8]) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  const std::byte* codes = unit + g * kLayout.code_bytes;
  if constexpr (kKind == PackedKind::kU8) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) w[j] = _mm512_loadu_si512(codes + 64 * j);
    return;
  }
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i both = _mm512_loadu_si512(codes + 64 * j);
    w[j] = _mm512_and_si512(both, low);
    w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
  }
  const std::byte* high = unit + kLayout.high + g * kLayout.high_bytes;
  constexpr int kOrAnd = 0xf8;  // ternary logic: a | (b & c)
  if constexpr (kLayout.high_bytes == 64) {
    const __m512i bits = _mm512_loadu_si512(high);
    const __m512i mask = _mm512_set1_epi8(16);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      w[j] = _mm512_ternarylogic_epi32(w[j], _mm512_slli_epi16(bits, 4 - j), mask, kOrAnd);
      w[j + 4] = _mm512_ternarylogic_epi32(w[j + 4], _mm512_srli_epi16(bits, j), mask, kOrAnd);
    }
  }
  if constexpr (kLayout.high_bytes == 128) {
    const __m512i mask = _mm512_set1_epi8(48);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m512i bits = _mm512_loadu_si512(high + 64 * h);
      w[4 * h] = _mm512_ternarylogic_epi32(w[4 * h], _mm512_slli_epi16(bits, 4), mask, kOrAnd);
      w[4 * h + 1] = _mm512_ternarylogic_epi32(w[4 * h + 1], _mm512_slli_epi16(bits, 2), mask, kOrAnd);
      w[4 * h + 2] = _mm512_ternarylogic_epi32(w[4 * h + 2], bits, mask, kOrAnd);
      w[4 * h + 3] = _mm512_ternarylogic_epi32(w[4 * h + 3], _mm512_srli_epi16(bits, 2), mask, kOrAnd);
    }
  }
}

template <PackedKind kKind>
THIMBLE_AVX512_INLINE __m512 load_scale(const std::byte* unit, int64_t g, int half) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.sub_scale == 0) return halves_to_floats(unit + kLayout.scale + g * 2 * kLanes);
  const int64_t at = kLayout.sub_scale + (kKind == PackedKind::kU6 ? 2 * g + half : g) * kLanes;
  const __m128i sub = _mm_loadu_si128(reinterpret_cast<const __m128i*>(unit + at));
  const __m512i wide = kKind == PackedKind::kU6 ? _mm512_cvtepi8_epi32(sub) : _mm512_cvtepu8_epi32(sub);
  return _mm512_mul_ps(_mm512_cvtepi32_ps(wide), halves_to_floats(unit + kLayout.scale));
}

template <PackedKind kKind>
THIMBLE_AVX512_INLINE __m512 load_min(const std::byte* unit, int64_t g) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.sub_min == 0) return halves_to_floats(unit + kLayout.min + g * 2 * kLanes);
  const __m128i sub = _mm_loadu_si128(reinterpret_cast<const __m128i*>(unit + kLayout.sub_min + g * kLanes));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sub)), halves_to_floats(unit + kLayout.min));
}

THIMBLE_AVX512_INLINE __m512i quad(const int8_t* codes) {
  int32_t value;
  __builtin_memcpy(&value, codes, sizeof value);
  return _mm512_set1_epi32(value);
}

// -zero * sum of a row's codes, where the product of codes and activations begins.
template <PackedKind kKind>
THIMBLE_AVX512_INLINE __m512i start(const ActivationTile& a, int64_t g, int half, int row) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.has_min) return _mm512_setzero_si512();
  if constexpr (kKind == PackedKind::kU6) return _mm512_set1_epi32(a.halves[(2 * g + half) * a.rows + row]);
  const __m512i times8 = _mm512_set1_epi32(a.correction[g * a.rows + row]);
  if constexpr (kLayout.zero == 16) return _mm512_slli_epi32(times8, 1);
  if constexpr (kLayout.zero == 128) return _mm512_slli_epi32(times8, 4);
  return times8;
}

THIMBLE_AVX512_INLINE void store(const TileOutput& out, int row, __m512 value) {
  const __mmask16 mask = static_cast<__mmask16>((1u << out.cols) - 1);
  float* y = out.y + row * out.stride;
  if (out.bias != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, out.bias));
  if (out.add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), value);
  _mm512_mask_storeu_ps(y, mask, value);
}

// 16 lanes x kRows rows. Every (row, lane) sums the same f32 products in the same order whatever kRows is; the integer
// sums are exact, so their order is free.
template <PackedKind kKind, int kRows>
THIMBLE_AVX512 void quantized(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  constexpr int kHalves = kKind == PackedKind::kU6 ? 2 : 1;  // scales a group
  constexpr int kSteps = kQuads / kHalves;
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) total[r] = _mm512_setzero_ps();

  const int64_t units = unit_count(kKind, in);
  for (int64_t u = 0; u < units; ++u) {
    const std::byte* unit = weight + u * kLayout.bytes;
#pragma GCC unroll 1
    for (int64_t in_unit = 0; in_unit < kLayout.groups; ++in_unit) {
      const int64_t g = u * kLayout.groups + in_unit;
      constexpr int kGroupBytes = kLayout.bytes / kLayout.groups;
#pragma GCC unroll 16
      for (int at = 0; at < kGroupBytes; at += 64) __builtin_prefetch(unit + in_unit * kGroupBytes + kPrefetch + at);
      __m512i w[kQuads];
      load_codes<kKind>(unit, in_unit, w);
      const int8_t* high = a.high + g * kRows * kGroup;
      const float* scales = a.scale + g * kRows;
      const unsigned fine = a.fine[g];
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) {
        const __m512 scale = load_scale<kKind>(unit, in_unit, half);
#pragma GCC unroll 4
        for (int first = 0; first < kRows; first += kSubset) {
          constexpr int kStep = kRows < kSubset ? kRows : kSubset;
          if (((fine >> (first / kSubset)) & 1) == 0) [[likely]] {
            __m512i dot[kSubset];
#pragma GCC unroll 4
            for (int r = 0; r < kStep; ++r)
              if (first + r < kRows) dot[r] = start<kKind>(a, g, half, first + r);
#pragma GCC unroll 8
            for (int j = 0; j < kSteps; ++j)
#pragma GCC unroll 4
              for (int r = 0; r < kStep; ++r)
                if (first + r < kRows)
                  dot[r] = _mm512_dpbusd_epi32(dot[r], w[half * kSteps + j],
                                               quad(high + (first + r) * kGroup + 4 * (half * kSteps + j)));
#pragma GCC unroll 4
            for (int r = 0; r < kStep; ++r)
              if (first + r < kRows)
                total[first + r] =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), _mm512_mul_ps(scale, _mm512_set1_ps(scales[first + r])),
                                    total[first + r]);
          } else {
            const int8_t* low = a.low + g * kRows * kGroup;
#pragma GCC unroll 2
            for (int pair = 0; pair < kStep; pair += 2) {
              __m512i top[2], bottom[2];
#pragma GCC unroll 2
              for (int r = 0; r < 2; ++r)
                if (pair + r < kStep && first + pair + r < kRows) {
                  top[r] = _mm512_setzero_si512();
                  bottom[r] = start<kKind>(a, g, half, first + pair + r);
                }
#pragma GCC unroll 8
              for (int j = 0; j < kSteps; ++j)
#pragma GCC unroll 2
                for (int r = 0; r < 2; ++r)
                  if (pair + r < kStep && first + pair + r < kRows) {
                    const int64_t at = (first + pair + r) * kGroup + 4 * (half * kSteps + j);
                    top[r] = _mm512_dpbusd_epi32(top[r], w[half * kSteps + j], quad(high + at));
                    bottom[r] = _mm512_dpbusd_epi32(bottom[r], w[half * kSteps + j], quad(low + at));
                  }
#pragma GCC unroll 2
              for (int r = 0; r < 2; ++r)
                if (pair + r < kStep && first + pair + r < kRows) {
                  const int row = first + pair + r;
                  const __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(top[r], 8), bottom[r]);
                  total[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                               _mm512_mul_ps(scale, _mm512_set1_ps(scales[row])), total[row]);
                }
            }
          }
        }
      }
      if constexpr (kLayout.has_min) {
        const __m512 min = load_min<kKind>(unit, in_unit);
        const float* sums = a.sum + g * kRows;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) total[r] = _mm512_fmadd_ps(min, _mm512_set1_ps(sums[r]), total[r]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
    if (r < a.valid) store(out, r, total[r]);
}

template <PackedKind kKind>
TileKernel for_rows(int rows) {
  switch (rows) {
    case 1:
      return quantized<kKind, 1>;
    case 2:
      return quantized<kKind, 2>;
    case 3:
      return quantized<kKind, 3>;
    case 4:
      return quantized<kKind, 4>;
    case 6:
      return quantized<kKind, 6>;
    case 8:
      return quantized<kKind, 8>;
    case 12:
      return quantized<kKind, 12>;
    case 16:
      return quantized<kKind, 16>;
    default:
      return nullptr;
  }
}

}  // namespace

TileKernel avx512_kernel(PackedKind kind, int rows) {
  switch (kind) {
    case PackedKind::kU8:
      return for_rows<PackedKind::kU8>(rows);
    case PackedKind::kU4:
      return for_rows<PackedKind::kU4>(rows);
    case PackedKind::kU4Min:
      return for_rows<PackedKind::kU4Min>(rows);
    case PackedKind::kU5:
      return for_rows<PackedKind::kU5>(rows);
    case PackedKind::kU5Min:
      return for_rows<PackedKind::kU5Min>(rows);
    case PackedKind::kU6:
      return for_rows<PackedKind::kU6>(rows);
    case PackedKind::kU4Super:
      return for_rows<PackedKind::kU4Super>(rows);
    case PackedKind::kU5Super:
      return for_rows<PackedKind::kU5Super>(rows);
    default:
      return nullptr;
  }
}

}  // namespace thimble::packed

#else
namespace thimble::packed {
TileKernel avx512_kernel(PackedKind, int) { return nullptr; }
}  // namespace thimble::packed
#endif
