#include "kernels/packed_layout.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define THIMBLE_AVX2 __attribute__((target("avx2,f16c,fma")))
#define THIMBLE_AVX2_INLINE THIMBLE_AVX2 __attribute__((always_inline)) static inline

// The tiles of packed_layout.h in halves of eight lanes. Without vpdpbusd a product of bytes is vpmaddubsw, whose
// 16-bit pair sums hold codes of up to 7 bits times activations of 8: 2 * 63 * 128. Bytes of weights are taken as
// their size times the activation with their sign: 2 * 128 * 127.
namespace thimble::packed {
namespace {

constexpr int kHalf = 8;  // lanes a register

THIMBLE_AVX2_INLINE __m256 halves_to_floats(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

THIMBLE_AVX2_INLINE __m256i load(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

THIMBLE_AVX2_INLINE __m256i or_masked(__m256i a, __m256i b, __m256i mask) {
  return _mm256_or_si256(a, _mm256_and_si256(b, mask));
}

// Quads 4 part .. 4 part + 3 of group g for eight lanes: w[i] holds elements 16 part + 4 i .. + 3. Codes of kU8 come
// out signed, all others unsigned.
template <PackedKind kKind>
THIMBLE_AVX2_INLINE void load_codes(const std::byte* unit, int64_t g, int side, int part, __m256i w[4]) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  const std::byte* codes = unit + g * kLayout.code_bytes + 32 * side;
  if constexpr (kKind == PackedKind::kU8) {
    const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) w[i] = _mm256_xor_si256(load(codes + 64 * (4 * part + i)), top);
    return;
  }
  const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256i both = load(codes + 64 * i);
    w[i] = _mm256_and_si256(part == 0 ? both : _mm256_srli_epi16(both, 4), nibble);
  }
  const std::byte* high = unit + kLayout.high + g * kLayout.high_bytes + 32 * side;
  if constexpr (kLayout.high_bytes == 64) {
    const __m256i bits = load(high), mask = _mm256_set1_epi8(16);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      w[i] = or_masked(w[i], part == 0 ? _mm256_slli_epi16(bits, 4 - i) : _mm256_srli_epi16(bits, i), mask);
  }
  if constexpr (kLayout.high_bytes == 128) {
    const __m256i bits = load(high + 64 * part), mask = _mm256_set1_epi8(48);
    w[0] = or_masked(w[0], _mm256_slli_epi16(bits, 4), mask);
    w[1] = or_masked(w[1], _mm256_slli_epi16(bits, 2), mask);
    w[2] = or_masked(w[2], bits, mask);
    w[3] = or_masked(w[3], _mm256_srli_epi16(bits, 2), mask);
  }
}

template <PackedKind kKind>
THIMBLE_AVX2_INLINE __m256 load_scale(const std::byte* unit, int64_t g, int part, int side) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.sub_scale == 0) return halves_to_floats(unit + kLayout.scale + 2 * (g * kLanes + kHalf * side));
  const int64_t at = kLayout.sub_scale + (kKind == PackedKind::kU6 ? 2 * g + part : g) * kLanes + kHalf * side;
  const __m128i sub = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(unit + at));
  const __m256i wide = kKind == PackedKind::kU6 ? _mm256_cvtepi8_epi32(sub) : _mm256_cvtepu8_epi32(sub);
  return _mm256_mul_ps(_mm256_cvtepi32_ps(wide), halves_to_floats(unit + kLayout.scale + 2 * kHalf * side));
}

template <PackedKind kKind>
THIMBLE_AVX2_INLINE __m256 load_min(const std::byte* unit, int64_t g, int side) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.sub_min == 0) return halves_to_floats(unit + kLayout.min + 2 * (g * kLanes + kHalf * side));
  const __m128i sub =
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(unit + kLayout.sub_min + g * kLanes + kHalf * side));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(sub)),
                       halves_to_floats(unit + kLayout.min + 2 * kHalf * side));
}

THIMBLE_AVX2_INLINE __m256i quad(const int8_t* codes) {
  int32_t value;
  __builtin_memcpy(&value, codes, sizeof value);
  return _mm256_set1_epi32(value);
}

// Sixteen elements of eight lanes times one row's activations: 32-bit sums. Only low bytes may be -128.
template <PackedKind kKind, bool kLow>
THIMBLE_AVX2_INLINE __m256i dot16(const __m256i w[4], const int8_t* x) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
  if constexpr (kKind == PackedKind::kU8 && !kLow) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(quad(x + 4 * i), w[i]));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    return sum;
  }
  if constexpr (kKind == PackedKind::kU8) {
    // vpsignb can't negate -128, so bytes are widened by parts instead: exact for every byte.
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i a = quad(x + 4 * i);
      const __m256i even = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(w[i], 8), 8),
                                             _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
      const __m256i odd = _mm256_madd_epi16(_mm256_srai_epi16(w[i], 8), _mm256_srai_epi16(a, 8));
      sum = _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
    }
    return sum;
  }
  constexpr bool kFits = kKind == PackedKind::kU4 || kKind == PackedKind::kU4Min || kKind == PackedKind::kU4Super;
  if constexpr (kFits) {  // 8 products of 15 * 128 stay below 2^15
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[i], quad(x + 4 * i)));
    return _mm256_madd_epi16(sum, ones);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 4; i += 2) {  // 4 products of 63 * 128
    const __m256i pair = _mm256_add_epi16(_mm256_maddubs_epi16(w[i], quad(x + 4 * i)),
                                          _mm256_maddubs_epi16(w[i + 1], quad(x + 4 * i + 4)));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pair, ones));
  }
  return sum;
}

// -zero * sum of a row's codes; nothing for kU8, whose codes are signed here.
template <PackedKind kKind>
THIMBLE_AVX2_INLINE int32_t start(const ActivationTile& a, int64_t g, int part, int row) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.has_min || kKind == PackedKind::kU8) return 0;
  if constexpr (kKind == PackedKind::kU6) return a.halves[(2 * g + part) * a.rows + row];
  return a.correction[g * a.rows + row] * (kLayout.zero / 8);
}

THIMBLE_AVX2_INLINE void store(const TileOutput& out, int row, int side, __m256 value) {
  float lanes[kHalf];
  _mm256_storeu_ps(lanes, value);
  float* y = out.y + row * out.stride;
  for (int i = 0; i < kHalf && kHalf * side + i < out.cols; ++i) {
    const int column = kHalf * side + i;
    const float v = out.bias == nullptr ? lanes[i] : lanes[i] + out.bias[column];
    y[column] = out.add ? y[column] + v : v;
  }
}

constexpr int kTogether = 4;  // rows that share unpacked weights in registers

// Rows [first, first + kRows) against eight lanes.
template <PackedKind kKind, int kRows>
THIMBLE_AVX2 void quantized_rows(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out,
                                 int first, int side) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  __m256 total[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) total[r] = _mm256_setzero_ps();
  const int64_t units = unit_count(kKind, in);
  for (int64_t u = 0; u < units; ++u) {
    const std::byte* unit = weight + u * kLayout.bytes;
    for (int64_t in_unit = 0; in_unit < kLayout.groups; ++in_unit) {
      constexpr int kGroupBytes = kLayout.bytes / kLayout.groups;
      if (side == 0)
        for (int at = 0; at < kGroupBytes; at += 64) __builtin_prefetch(unit + in_unit * kGroupBytes + kPrefetch + at);
      const int64_t g = u * kLayout.groups + in_unit;
      const int8_t* high = a.high + (g * a.rows + first) * kGroup;
      const int8_t* low = a.low + (g * a.rows + first) * kGroup;
      const float* scales = a.scale + g * a.rows + first;
      const bool fine = ((a.fine[g] >> (first / kSubset)) & 1) != 0;
      __m256i dot[kRows];
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part) {
        __m256i w[4];
        load_codes<kKind>(unit, in_unit, side, part, w);
        const bool fresh = part == 0 || kKind == PackedKind::kU6;
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          if (fresh) dot[r] = _mm256_set1_epi32(start<kKind>(a, g, part, first + r));
          const int at = r * kGroup + 16 * part;
          __m256i sum = dot16<kKind, false>(w, high + at);
          if (fine) sum = _mm256_add_epi32(_mm256_slli_epi32(sum, 8), dot16<kKind, true>(w, low + at));
          dot[r] = _mm256_add_epi32(dot[r], sum);
        }
        if (part == 0 && kKind != PackedKind::kU6) continue;
        const __m256 scale = load_scale<kKind>(unit, in_unit, part, side);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
          total[r] =
              _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r]), _mm256_mul_ps(scale, _mm256_set1_ps(scales[r])), total[r]);
      }
      if constexpr (kLayout.has_min) {
        const __m256 min = load_min<kKind>(unit, in_unit, side);
        const float* sums = a.sum + g * a.rows + first;
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) total[r] = _mm256_fmadd_ps(min, _mm256_set1_ps(sums[r]), total[r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
    if (first + r < a.valid) store(out, first + r, side, total[r]);
}

template <PackedKind kKind>
THIMBLE_AVX2 void quantized(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  for (int side = 0; side * kHalf < out.cols; ++side) {
    int r = 0;
    for (; r + kTogether <= a.rows; r += kTogether) quantized_rows<kKind, kTogether>(weight, in, a, out, r, side);
    for (; r < a.rows; ++r) quantized_rows<kKind, 1>(weight, in, a, out, r, side);
  }
}

// One chain of fused multiply-adds a (row, lane), in order of k.
template <PackedKind kKind, int kRows>
THIMBLE_AVX2 void float_rows(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out,
                             int first) {
  __m256 total[kRows][2];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) total[r][0] = total[r][1] = _mm256_setzero_ps();
  const float* x = a.values + first;
  constexpr int kStep = kKind == PackedKind::kBF16 ? 2 : 1;
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  for (int64_t k = 0; k < in; k += kStep) {
    const std::byte* at = weight + k / kStep * unit_layout(kKind).bytes;
    __builtin_prefetch(at + kPrefetch);
#pragma GCC unroll 2
    for (int side = 0; side < 2; ++side) {
      __m256 w[kStep];
      if constexpr (kKind == PackedKind::kF32)
        w[0] = _mm256_loadu_ps(reinterpret_cast<const float*>(at) + kHalf * side);
      if constexpr (kKind == PackedKind::kF16) w[0] = halves_to_floats(at + 2 * kHalf * side);
      if constexpr (kKind == PackedKind::kBF16) {
        const __m256i both = load(at + 32 * side);
        w[0] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
        w[1] = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
      }
#pragma GCC unroll 2
      for (int step = 0; step < kStep; ++step)
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
          total[r][side] = _mm256_fmadd_ps(w[step], _mm256_set1_ps(x[(k + step) * a.rows + r]), total[r][side]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
    if (first + r < a.valid)
      for (int side = 0; side * kHalf < out.cols; ++side) store(out, first + r, side, total[r][side]);
}

template <PackedKind kKind>
THIMBLE_AVX2 void floats(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  int r = 0;
  for (; r + kTogether <= a.rows; r += kTogether) float_rows<kKind, kTogether>(weight, in, a, out, r);
  for (; r < a.rows; ++r) float_rows<kKind, 1>(weight, in, a, out, r);
}

}  // namespace

TileKernel avx2_kernel(PackedKind kind, int) {
  switch (kind) {
    case PackedKind::kF32:
      return floats<PackedKind::kF32>;
    case PackedKind::kF16:
      return floats<PackedKind::kF16>;
    case PackedKind::kBF16:
      return floats<PackedKind::kBF16>;
    case PackedKind::kU8:
      return quantized<PackedKind::kU8>;
    case PackedKind::kU4:
      return quantized<PackedKind::kU4>;
    case PackedKind::kU4Min:
      return quantized<PackedKind::kU4Min>;
    case PackedKind::kU5:
      return quantized<PackedKind::kU5>;
    case PackedKind::kU5Min:
      return quantized<PackedKind::kU5Min>;
    case PackedKind::kU6:
      return quantized<PackedKind::kU6>;
    case PackedKind::kU4Super:
      return quantized<PackedKind::kU4Super>;
    case PackedKind::kU5Super:
      return quantized<PackedKind::kU5Super>;
  }
  return nullptr;
}

}  // namespace thimble::packed

#else
namespace thimble::packed {
TileKernel avx2_kernel(PackedKind, int) { return nullptr; }
}  // namespace thimble::packed
#endif
