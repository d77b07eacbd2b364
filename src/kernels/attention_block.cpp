#include "kernels/attention_block.h"

#include <algorithm>
#include <cstring>

#include "core/cpu.h"
#include "tensor/half.h"

#if defined(__x86_64__)
// GCC 12's own _mm512_undefined_* read what they do not set.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

namespace thimble {
namespace attention {
namespace {

using Unpack = void(const KeyValueView&, const int32_t* slots, int count, int64_t column, int head_dim, int stride,
                    float* keys, float* values);

const std::byte* element(const std::byte* base, const KeyValueView& kv, int32_t slot, int64_t column) {
  return base + (slot * kv.row_stride + column) * (kv.type == DType::kF16 ? 2 : 4);
}

float value_at(const std::byte* p, DType type, int i) {
  if (type == DType::kF16) {
    uint16_t bits;
    std::memcpy(&bits, p + 2 * i, sizeof bits);
    return f16_to_f32(bits);
  }
  float value;
  std::memcpy(&value, p + 4 * i, sizeof value);
  return value;
}

void plain(const KeyValueView& kv, const int32_t* slots, int count, int64_t column, int head_dim, int stride,
           float* keys, float* values) {
  for (int j = 0; j < kKeys; ++j) {
    if (j >= count) {
      for (int d = 0; d < head_dim; ++d) keys[d * kKeys + j] = 0;
      continue;
    }
    const std::byte* key = element(kv.keys, kv, slots[j], column);
    const std::byte* value = element(kv.values, kv, slots[j], column);
    for (int d = 0; d < head_dim; ++d) {
      keys[d * kKeys + j] = value_at(key, kv.type, d);
      values[j * stride + d] = value_at(value, kv.type, d);
    }
    std::fill(values + j * stride + head_dim, values + (j + 1) * stride, 0.0f);
  }
}

#if defined(__x86_64__)
#define THIMBLE_UNPACK_512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c,fma")))
#define THIMBLE_UNPACK_256 __attribute__((target("avx2,f16c,fma")))

// Elements d .. d + 15 of a stored row; zeros past head_dim.
THIMBLE_UNPACK_512 __attribute__((always_inline)) inline __m512 load16(const std::byte* p, bool half, int d,
                                                                       int head_dim) {
  const int left = head_dim - d;
  const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1u << left) - 1);
  if (half) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p + 2 * d));
  return _mm512_maskz_loadu_ps(mask, p + 4 * d);
}

THIMBLE_UNPACK_512 __attribute__((always_inline)) inline void transpose16(__m512 r[16]) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  const auto pairs_low = [](__m512 a, __m512 b) __attribute__((always_inline, target("avx512f"))) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto pairs_high = [](__m512 a, __m512 b) __attribute__((always_inline, target("avx512f"))) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = pairs_low(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = pairs_high(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = pairs_low(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = pairs_high(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

THIMBLE_UNPACK_512 void avx512(const KeyValueView& kv, const int32_t* slots, int count, int64_t column, int head_dim,
                               int stride, float* keys, float* values) {
  const bool half = kv.type == DType::kF16;
  const int64_t bytes = half ? 2 : 4;
  const bool whole = half && head_dim % 16 == 0;  // no masks: the usual case, and the one that must be fast
  for (int first = 0; first < kKeys; first += 16) {
    const std::byte* rows[16];
    for (int i = 0; i < 16; ++i)
      rows[i] = kv.keys + (slots[std::min(first + i, count - 1)] * kv.row_stride + column) * bytes;
    for (int d = 0; d < head_dim; d += 16) {
      __m512 r[16];
      if (whole && first + 16 <= count) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          r[i] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[i] + 2 * d)));
        transpose16(r);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) _mm512_storeu_ps(keys + (d + i) * kKeys + first, r[i]);
        continue;
      }
      if (first >= count) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) r[i] = _mm512_setzero_ps();
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          r[i] = first + i < count ? load16(rows[i], half, d, head_dim) : _mm512_setzero_ps();
        transpose16(r);
      }
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (d + i < head_dim) _mm512_storeu_ps(keys + (d + i) * kKeys + first, r[i]);
    }
  }
  for (int j = 0; j < count; ++j) {
    const std::byte* row = kv.values + (slots[j] * kv.row_stride + column) * bytes;
    if (whole) {
      for (int d = 0; d < head_dim; d += 16)
        _mm512_storeu_ps(values + j * stride + d,
                         _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 2 * d))));
      continue;
    }
    for (int d = 0; d < head_dim; d += 16) _mm512_storeu_ps(values + j * stride + d, load16(row, half, d, head_dim));
  }
}

// head_dim a multiple of 8.
THIMBLE_UNPACK_256 void avx2(const KeyValueView& kv, const int32_t* slots, int count, int64_t column, int head_dim,
                             int stride, float* keys, float* values) {
  const bool half = kv.type == DType::kF16;
  const int64_t bytes = half ? 2 : 4;
  for (int j = 0; j < kKeys; ++j) {
    const bool there = j < count;
    const int64_t at = there ? (slots[j] * kv.row_stride + column) * bytes : 0;
    for (int d = 0; d < head_dim; d += 8) {
      __m256 key = _mm256_setzero_ps();
      if (there) {
        const std::byte* k = kv.keys + at + d * bytes;
        const std::byte* v = kv.values + at + d * bytes;
        key = half ? _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(k)))
                   : _mm256_loadu_ps(reinterpret_cast<const float*>(k));
        _mm256_storeu_ps(values + j * stride + d,
                         half ? _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(v)))
                              : _mm256_loadu_ps(reinterpret_cast<const float*>(v)));
      }
      float lanes[8];
      _mm256_storeu_ps(lanes, key);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) keys[(d + i) * kKeys + j] = lanes[i];
    }
    if (there)
      for (int d = head_dim; d < stride; ++d) values[j * stride + d] = 0;
  }
}
#endif

}  // namespace

void unpack_block(const KeyValueView& kv, const int32_t* slots, int count, int64_t column, int head_dim, int stride,
                  float* keys, float* values) {
  Unpack* unpack = plain;
#if defined(__x86_64__)
  const CpuLevel level = cpu_level();
  if (level >= CpuLevel::kAvx512)
    unpack = avx512;
  else if (level == CpuLevel::kAvx2 && head_dim % 8 == 0)
    unpack = avx2;
#endif
  unpack(kv, slots, count, column, head_dim, stride, keys, values);
}

void prefetch_block(const KeyValueView& kv, const int32_t* slots, int count, int64_t column, int head_dim) {
  const int64_t bytes = kv.type == DType::kF16 ? 2 : 4;
  for (const std::byte* base : {kv.keys, kv.values})
    for (int j = 0; j < count; ++j) {
      const std::byte* row = base + (slots[j] * kv.row_stride + column) * bytes;
      for (int64_t at = 0; at < head_dim * bytes; at += 64) __builtin_prefetch(row + at);
    }
}

}  // namespace attention

namespace {

void store_row(DType type, const float* row, int64_t width, std::byte* to) {
  if (type == DType::kF32) {
    std::memcpy(to, row, static_cast<size_t>(width) * 4);
    return;
  }
  for (int64_t i = 0; i < width; ++i) {
    const uint16_t bits = f32_to_f16(row[i]);
    std::memcpy(to + 2 * i, &bits, sizeof bits);
  }
}

#if defined(__x86_64__)
THIMBLE_UNPACK_256 void store_row_f16(const float* row, int64_t width, std::byte* to) {
  int64_t i = 0;
  for (; i + 8 <= width; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(row + i), _MM_FROUND_TO_NEAREST_INT));
  store_row(DType::kF16, row + i, width - i, to + 2 * i);
}
#endif

}  // namespace

void store_keys(DType type, const float* rows, int64_t count, int64_t width, const int32_t* slots, std::byte* storage) {
  const auto row_bytes = width * (type == DType::kF16 ? 2 : 4);
  for (int64_t r = 0; r < count; ++r) {
    std::byte* to = storage + slots[r] * row_bytes;
#if defined(__x86_64__)
    if (type == DType::kF16 && cpu_level() >= CpuLevel::kAvx2) {
      store_row_f16(rows + r * width, width, to);
      continue;
    }
#endif
    store_row(type, rows + r * width, width, to);
  }
}

}  // namespace thimble
