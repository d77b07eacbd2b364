#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstddef>

#include "kernels/avx512_transpose.h"
#include "kernels/kv_layout.h"

// For functions with AVX-512 intrinsics in files that are compiled for any machine: callers ask cpu_level() first.
#define THIMBLE_KV_512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c,fma")))

namespace thimble {

// 16 stored elements; those outside the mask are not read and become 0.
template <KvType kType>
THIMBLE_KV_512 __attribute__((always_inline)) inline __m512 widen16(const std::byte* from, __mmask16 mask) {
  if constexpr (kType == KvType::kF32) return _mm512_maskz_loadu_ps(mask, from);
  if constexpr (kType == KvType::kF16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
  if constexpr (kType == KvType::kBF16)
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, from)));
}
template <KvType kType>
THIMBLE_KV_512 __attribute__((always_inline)) inline __m512 widen16(const std::byte* from) {
  if constexpr (kType == KvType::kF32) return _mm512_loadu_ps(from);
  if constexpr (kType == KvType::kF16)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  if constexpr (kType == KvType::kBF16)
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

// The lanes of the mask, to 16 stored elements; lanes of inverse for kQ8.
template <KvType kType>
THIMBLE_KV_512 __attribute__((always_inline)) inline void narrow16(__m512 x, __m512 inverse, __mmask16 mask,
                                                                   std::byte* to) {
  if constexpr (kType == KvType::kF32) _mm512_mask_storeu_ps(to, mask, x);
  if constexpr (kType == KvType::kF16)
    _mm256_mask_storeu_epi16(to, mask, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  if constexpr (kType == KvType::kBF16) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));  // NaN stays NaN
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    _mm256_mask_storeu_epi16(
        to, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16)));
  }
  if constexpr (kType == KvType::kQ8)
    _mm_mask_storeu_epi8(to, mask, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, inverse))));
}

THIMBLE_KV_512 __attribute__((always_inline)) inline void transpose16(__m512 r[16]) {
  __m512i bits[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) bits[i] = _mm512_castps_si512(r[i]);
  transpose(bits);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_castsi512_ps(bits[i]);
}

}  // namespace thimble

#endif
