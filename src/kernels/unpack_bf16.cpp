#include "kernels/unpack_bf16.h"

#include <algorithm>

#include "core/cpu.h"
#include "kernels/avx512_transpose.h"
#include "kernels/scratch.h"
#include "kernels/target.h"
#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thimble {
namespace {

#if defined(__x86_64__)

THIMBLE_AVX512_BF16 inline __m512 half_to_lanes(uint16_t bits) { return _mm512_cvtph_ps(_mm256_set1_epi16(bits)); }

THIMBLE_AVX512_BF16 inline void store(uint16_t* out, __m512 low, __m512 high) {  // elements 0..15, 16..31
  _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// 32 nibbles of a simple block: element j in the low half of byte j, j + 16 in the high half.
struct Codes {
  __m512i low;
  __m512i high;
};
THIMBLE_AVX512_BF16 inline Codes nibbles(const uint8_t* quants) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(quants)));
  return {_mm512_and_si512(bytes, _mm512_set1_epi32(15)), _mm512_srli_epi32(bytes, 4)};
}
THIMBLE_AVX512_BF16 inline Codes with_fifth_bit(Codes codes, const uint8_t* high) {
  uint32_t bits;
  __builtin_memcpy(&bits, high, sizeof bits);
  const __m512i sixteen = _mm512_set1_epi32(16);
  codes.low = _mm512_mask_or_epi32(codes.low, static_cast<__mmask16>(bits), codes.low, sixteen);
  codes.high = _mm512_mask_or_epi32(codes.high, static_cast<__mmask16>(bits >> 16), codes.high, sixteen);
  return codes;
}
// scale · code + offset
THIMBLE_AVX512_BF16 inline void store(uint16_t* out, Codes codes, __m512 scale, __m512 offset) {
  store(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes.low), scale, offset),
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes.high), scale, offset));
}
THIMBLE_AVX512_BF16 inline __m512 times(__m512 scale, float factor) {
  return _mm512_mul_ps(scale, _mm512_set1_ps(factor));
}

THIMBLE_AVX512_BF16 inline void unpack(const BlockQ4_0& b, uint16_t* out) {
  const __m512 scale = half_to_lanes(b.scale);
  store(out, nibbles(b.quants), scale, times(scale, -8));
}
THIMBLE_AVX512_BF16 inline void unpack(const BlockQ4_1& b, uint16_t* out) {
  store(out, nibbles(b.quants), half_to_lanes(b.scale), half_to_lanes(b.min));
}
THIMBLE_AVX512_BF16 inline void unpack(const BlockQ5_0& b, uint16_t* out) {
  const __m512 scale = half_to_lanes(b.scale);
  store(out, with_fifth_bit(nibbles(b.quants), b.high), scale, times(scale, -16));
}
THIMBLE_AVX512_BF16 inline void unpack(const BlockQ5_1& b, uint16_t* out) {
  store(out, with_fifth_bit(nibbles(b.quants), b.high), half_to_lanes(b.scale), half_to_lanes(b.min));
}
THIMBLE_AVX512_BF16 inline void unpack(const BlockQ8_0& b, uint16_t* out) {
  const __m512 scale = half_to_lanes(b.scale);
  const auto lanes = [&](const int8_t* q) THIMBLE_AVX512_BF16 {
    const __m512i codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(codes), scale);
  };
  store(out, lanes(b.quants), lanes(b.quants + 16));
}

// One sub-block of a K type: 32 codes, of whose bytes `shift` selects the half, with a fifth bit where high is given.
THIMBLE_AVX512_BF16 inline void unpack_sub_block(const uint8_t* quants, int shift, const uint8_t* high, int bit,
                                                 __m512 scale, __m512 offset, uint16_t* out) {
  const auto lanes = [&](int first) THIMBLE_AVX512_BF16 {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(quants + first)));
    __m512i codes = _mm512_and_si512(_mm512_srli_epi32(bytes, static_cast<unsigned>(shift)), _mm512_set1_epi32(15));
    if (high != nullptr) {
      const __m512i bits = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high + first)));
      const __mmask16 set = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1 << bit));
      codes = _mm512_mask_or_epi32(codes, set, codes, _mm512_set1_epi32(16));
    }
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), scale, offset);
  };
  store(out, lanes(0), lanes(16));
}
template <class Block>
THIMBLE_AVX512_BF16 inline void unpack_k(const Block& b, const uint8_t* high, uint16_t* out) {
  const __m512 scale = half_to_lanes(b.scale), min = half_to_lanes(b.min);
  for (int s = 0; s < 8; ++s) {
    const ScaleMin sub = scale_min_k4(b.scales, s);
    unpack_sub_block(b.quants + s / 2 * 32, s % 2 * 4, high, s, times(scale, sub.scale),
                     times(min, -static_cast<float>(sub.min)), out + s * 32);
  }
}
THIMBLE_AVX512_BF16 inline void unpack(const BlockQ4_K& b, uint16_t* out) { unpack_k(b, nullptr, out); }
THIMBLE_AVX512_BF16 inline void unpack(const BlockQ5_K& b, uint16_t* out) { unpack_k(b, b.high, out); }
THIMBLE_AVX512_BF16 inline void unpack(const BlockQ6_K& b, uint16_t* out) {
  const __m512 scale = half_to_lanes(b.scale);
  for (int s = 0; s < 8; ++s) {  // 32 elements each: quarter s % 4 of half s / 4
    const int half = s / 4, quarter = s % 4;
    const auto lanes = [&](int first) THIMBLE_AVX512_BF16 {
      const uint8_t* low = b.low + half * 64 + quarter % 2 * 32 + first;
      const __m512i lows = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
      const __m512i highs =
          _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.high + half * 32 + first)));
      const __m512i codes = _mm512_or_si512(
          _mm512_and_si512(_mm512_srli_epi32(lows, static_cast<unsigned>(quarter / 2 * 4)), _mm512_set1_epi32(15)),
          _mm512_and_si512(_mm512_slli_epi32(_mm512_srli_epi32(highs, static_cast<unsigned>(quarter * 2)), 4),
                           _mm512_set1_epi32(48)));
      const __m512 sub = times(scale, b.scales[s * 2 + first / 16]);
      return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(32))), sub);
    };
    store(out + s * 32, lanes(0), lanes(16));
  }
}

template <class Block, int kElements>
THIMBLE_AVX512_BF16 void unpack_blocks(const std::byte* row, int64_t n, uint16_t* out) {
  const auto* blocks = reinterpret_cast<const Block*>(row);
  for (int64_t i = 0; i < n / kElements; ++i) unpack(blocks[i], out + i * kElements);
}

THIMBLE_AVX512_BF16 inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, 16)) - 1);
}

THIMBLE_AVX512_BF16 void round_avx512(const float* x, int64_t n, float scale, uint16_t* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)  // apart from the rest, because masked stores of words are slow
    store(out + i, _mm512_mul_ps(_mm512_loadu_ps(x + i), factor), _mm512_mul_ps(_mm512_loadu_ps(x + i + 16), factor));
  if (i < n) {
    const __mmask16 low_mask = first_lanes(n - i), high_mask = first_lanes(n - i - 16);
    const __m512 low = _mm512_mul_ps(_mm512_maskz_loadu_ps(low_mask, x + i), factor);
    const __m512 high = _mm512_mul_ps(_mm512_maskz_loadu_ps(high_mask, x + i + 16), factor);
    const auto both = static_cast<__mmask32>(low_mask | (static_cast<uint32_t>(high_mask) << 16));
    _mm512_mask_storeu_epi16(out + i, both, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

THIMBLE_AVX512_BF16 void transpose_avx512(const float* x, int64_t rows, int64_t cols, float scale, uint16_t* out,
                                          int64_t stride) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t r = 0; r < rows; r += 32)
    for (int64_t c = 0; c < cols; c += 16) {
      const __mmask16 columns = first_lanes(cols - c);
      __m512i low[16], high[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        const __mmask16 low_mask = r + i < rows ? columns : __mmask16{0};
        const __mmask16 high_mask = r + 16 + i < rows ? columns : __mmask16{0};
        const float* from = x + (r + i) * cols + c;
        low[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_maskz_loadu_ps(low_mask, from), factor));
        high[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_maskz_loadu_ps(high_mask, from + 16 * cols), factor));
      }
      transpose(low);
      transpose(high);
      const auto filled = static_cast<__mmask32>((uint64_t{1} << std::min<int64_t>(32, rows - r)) - 1);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (i >= cols - c) break;
        const auto both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_castsi512_ps(high[i]), _mm512_castsi512_ps(low[i]));
        if (r + 32 <= rows)
          _mm512_storeu_si512(out + (c + i) * stride + r, both);
        else
          _mm512_mask_storeu_epi16(out + (c + i) * stride + r, filled, both);
      }
    }
}

THIMBLE_AVX512_BF16 void round_f16(const std::byte* row, int64_t n, uint16_t* out) {
  const auto* halves = reinterpret_cast<const uint16_t*>(row);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
    store(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves + i))),
          _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves + i + 16))));
  for (; i < n; i += 16) {
    const __mmask16 mask = first_lanes(n - i);
    const __m512 values = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves + i));
    _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(values));
  }
}

void unpack_avx512(DType type, const std::byte* row, int64_t n, uint16_t* out) {
  switch (type) {
    case DType::kF32:
      return round_avx512(reinterpret_cast<const float*>(row), n, 1, out);
    case DType::kF16:
      return round_f16(row, n, out);
    case DType::kBF16:
      __builtin_memcpy(out, row, static_cast<size_t>(n) * 2);
      return;
    case DType::kQ8_0:
      return unpack_blocks<BlockQ8_0, kBlock>(row, n, out);
    case DType::kQ4_0:
      return unpack_blocks<BlockQ4_0, kBlock>(row, n, out);
    case DType::kQ4_1:
      return unpack_blocks<BlockQ4_1, kBlock>(row, n, out);
    case DType::kQ5_0:
      return unpack_blocks<BlockQ5_0, kBlock>(row, n, out);
    case DType::kQ5_1:
      return unpack_blocks<BlockQ5_1, kBlock>(row, n, out);
    case DType::kQ4_K:
      return unpack_blocks<BlockQ4_K, kSuperBlock>(row, n, out);
    case DType::kQ5_K:
      return unpack_blocks<BlockQ5_K, kSuperBlock>(row, n, out);
    case DType::kQ6_K:
      return unpack_blocks<BlockQ6_K, kSuperBlock>(row, n, out);
  }
}

#endif

}  // namespace

void unpack_bf16(DType type, const std::byte* row, int64_t n, uint16_t* out) {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::kAvx512Bf16) return unpack_avx512(type, row, n, out);
#endif
  if (type == DType::kBF16) {
    __builtin_memcpy(out, row, static_cast<size_t>(n) * 2);
    return;
  }
  const Scratch<float> values(static_cast<size_t>(n));
  dequantize_row(type, row, n, values.data());
  for (int64_t i = 0; i < n; ++i) out[i] = f32_to_bf16(values.data()[i]);
}

void round_bf16(const float* x, int64_t n, float scale, uint16_t* out) {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::kAvx512Bf16) return round_avx512(x, n, scale, out);
#endif
  for (int64_t i = 0; i < n; ++i) out[i] = f32_to_bf16(x[i] * scale);
}

void transpose_bf16(const float* x, int64_t rows, int64_t cols, float scale, uint16_t* out, int64_t stride) {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::kAvx512Bf16) return transpose_avx512(x, rows, cols, scale, out, stride);
#endif
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out[c * stride + r] = f32_to_bf16(x[r * cols + c] * scale);
}

}  // namespace thimble
