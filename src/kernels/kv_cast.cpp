#include "kernels/kv_cast.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/cpu.h"
#include "kernels/kv_cast_avx512.h"
#include "tensor/half.h"

namespace thimble {
namespace {

template <KvType kType>
void widen_plain(const std::byte* from, int count, float* to) {
  for (int i = 0; i < count; ++i) {
    if constexpr (kType == KvType::kF32) {
      std::memcpy(to + i, from + 4 * i, 4);
    } else if constexpr (kType == KvType::kQ8) {
      to[i] = static_cast<float>(static_cast<int8_t>(from[i]));
    } else {
      uint16_t bits;
      std::memcpy(&bits, from + 2 * i, sizeof bits);
      to[i] = kType == KvType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
    }
  }
}

template <KvType kType>
void narrow_plain(const float* from, int count, float inverse, std::byte* to) {
  for (int i = 0; i < count; ++i) {
    if constexpr (kType == KvType::kF32) {
      std::memcpy(to + 4 * i, from + i, 4);
    } else if constexpr (kType == KvType::kQ8) {
      const float x = std::nearbyint(from[i] * inverse);
      to[i] = static_cast<std::byte>(static_cast<int8_t>(std::abs(x) <= 127.0f ? x : 0.0f));  // NaN: 0, by its scale
    } else {
      const uint16_t bits = kType == KvType::kF16 ? f32_to_f16(from[i]) : f32_to_bf16(from[i]);
      std::memcpy(to + 2 * i, &bits, sizeof bits);
    }
  }
}

#if defined(__x86_64__)
#define THIMBLE_KV_256 __attribute__((target("avx2,fma,f16c")))

template <KvType kType>
THIMBLE_KV_256 void widen_avx2(const std::byte* from, int count, float* to) {
  constexpr int kBytes = kType == KvType::kF32 ? 4 : kType == KvType::kQ8 ? 1 : 2;
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    const std::byte* p = from + i * kBytes;
    __m256 x;
    if constexpr (kType == KvType::kF32) {
      x = _mm256_loadu_ps(reinterpret_cast<const float*>(p));
    } else if constexpr (kType == KvType::kQ8) {
      x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    } else {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      if constexpr (kType == KvType::kF16) x = _mm256_cvtph_ps(bits);
      else x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
    _mm256_storeu_ps(to + i, x);
  }
  widen_plain<kType>(from + i * kBytes, count - i, to + i);
}

THIMBLE_KV_256 void narrow_f16_avx2(const float* from, int count, float inverse, std::byte* to) {
  int i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  narrow_plain<KvType::kF16>(from + i, count - i, inverse, to + 2 * i);
}

template <KvType kType>
THIMBLE_KV_512 void widen_avx512(const std::byte* from, int count, float* to) {
  constexpr int kBytes = kType == KvType::kF32 ? 4 : kType == KvType::kQ8 ? 1 : 2;
  int i = 0;
  for (; i + 16 <= count; i += 16) _mm512_storeu_ps(to + i, widen16<kType>(from + i * kBytes));
  if (i == count) return;
  const auto mask = static_cast<__mmask16>((1u << (count - i)) - 1);
  _mm512_mask_storeu_ps(to + i, mask, widen16<kType>(from + i * kBytes, mask));
}

template <KvType kType>
THIMBLE_KV_512 void narrow_avx512(const float* from, int count, float inverse, std::byte* to) {
  constexpr int kBytes = kType == KvType::kF32 ? 4 : kType == KvType::kQ8 ? 1 : 2;
  for (int i = 0; i < count; i += 16) {
    const auto mask = static_cast<__mmask16>((1u << std::min(16, count - i)) - 1);
    narrow16<kType>(_mm512_maskz_loadu_ps(mask, from + i), _mm512_set1_ps(inverse), mask, to + i * kBytes);
  }
}
#endif

template <KvType kType>
KvWiden* widen() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::kAvx512) return widen_avx512<kType>;
  if (cpu_level() >= CpuLevel::kAvx2) return widen_avx2<kType>;
#endif
  return widen_plain<kType>;
}

template <KvType kType>
KvNarrow* narrow() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::kAvx512) return narrow_avx512<kType>;
  if (kType == KvType::kF16 && cpu_level() >= CpuLevel::kAvx2) return narrow_f16_avx2;
#endif
  return narrow_plain<kType>;
}

}  // namespace

KvWiden* kv_widen(KvType type) {
  switch (type) {
    case KvType::kF32: return widen<KvType::kF32>();
    case KvType::kF16: return widen<KvType::kF16>();
    case KvType::kBF16: return widen<KvType::kBF16>();
    case KvType::kQ8: return widen<KvType::kQ8>();
  }
  return nullptr;
}

KvNarrow* kv_narrow(KvType type) {
  switch (type) {
    case KvType::kF32: return narrow<KvType::kF32>();
    case KvType::kF16: return narrow<KvType::kF16>();
    case KvType::kBF16: return narrow<KvType::kBF16>();
    case KvType::kQ8: return narrow<KvType::kQ8>();
  }
  return nullptr;
}

}  // namespace thimble
