#include "kernels/attention_block.h"

#include <algorithm>
#include <cstring>

#include "core/cpu.h"
#include "kernels/kv_cast.h"
#include "kernels/kv_cast_avx512.h"

namespace thimble::attention {
namespace {

// A block's rows of f32.
struct BlockRows {
  const float* keys[kKeys];
  const float* values[kKeys];
};

BlockRows rows_of(const KeyValueRows& kv, const BlockSlots& slots, int64_t column) {
  BlockRows rows;
  for (int i = 0; i < slots.runs; ++i) {
    const Run& run = slots.run[i];
    for (int32_t j = 0; j < run.count; ++j) {
      rows.keys[run.at + j] = kv.keys + (run.slot + j) * kv.stride + column;
      rows.values[run.at + j] = kv.values + (run.slot + j) * kv.stride + column;
    }
  }
  return rows;
}

void transpose_plain(const float* const* rows, int count, int head_dim, float* keys) {
  for (int j = 0; j < kKeys; ++j)
    for (int d = 0; d < head_dim; ++d) keys[d * kKeys + j] = j < count ? rows[j][d] : 0.0f;
}

#if defined(__x86_64__)
THIMBLE_KV_512 void transpose_avx512(const float* const* rows, int count, int head_dim, float* keys) {
  for (int first = 0; first < kKeys; first += 16) {
    for (int d = 0; d < head_dim; d += 16) {
      const int left = std::min(16, head_dim - d);
      const auto mask = static_cast<__mmask16>((1u << left) - 1);
      __m512 r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = first + i < count ? _mm512_maskz_loadu_ps(mask, rows[first + i] + d) : _mm512_setzero_ps();
      if (first < count) transpose16(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (i < left) _mm512_storeu_ps(keys + (d + i) * kKeys + first, r[i]);
    }
  }
}
#endif

void unpack_rows(const KeyValueRows& kv, const BlockSlots& slots, int64_t column, int head_dim, int stride, float* keys,
                 float* values) {
  const BlockRows rows = rows_of(kv, slots, column);
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::kAvx512)
    transpose_avx512(rows.keys, slots.count, head_dim, keys);
  else
#endif
    transpose_plain(rows.keys, slots.count, head_dim, keys);
  for (int j = 0; j < slots.count; ++j) {
    float* to = values + j * stride;
    std::memcpy(to, rows.values[j], static_cast<size_t>(head_dim) * sizeof(float));
    std::fill(to + head_dim, to + stride, 0.0f);
  }
}

void unpack_cache(const KeyValueCache& kv, const BlockSlots& slots, int kv_head, int head_dim, int stride, float* keys,
                  float* values) {
  KvWiden* const widen = kv_widen(kv.layout.type);
  const int64_t key_step = int64_t{kKvSlots} * kv.layout.element_bytes();
  for (int i = 0; i < slots.runs; ++i) {
    const Run& run = slots.run[i];
    const std::byte* key = kv.keys + kv.layout.key_at(run.slot, kv_head);
    for (int d = 0; d < head_dim; ++d) widen(key + d * key_step, run.count, keys + d * kKeys + run.at);
    widen(kv.values + kv.layout.value_at(run.slot, kv_head), run.count * stride, values + run.at * stride);
  }
  if (slots.count < kKeys)
    for (int d = 0; d < head_dim; ++d) std::fill(keys + d * kKeys + slots.count, keys + (d + 1) * kKeys, 0.0f);
}

}  // namespace

void unpack_block(const KeyValueView& kv, const BlockSlots& slots, int kv_head, int head_dim, int stride, float* keys,
                  float* values) {
  if (const auto* rows = std::get_if<KeyValueRows>(&kv))
    return unpack_rows(*rows, slots, int64_t{kv_head} * head_dim, head_dim, stride, keys, values);
  unpack_cache(std::get<KeyValueCache>(kv), slots, kv_head, head_dim, stride, keys, values);
}

bool unpack_scales(const KeyValueView& kv, const BlockSlots& slots, int kv_head, float* key_scales,
                   float* value_scales) {
  const auto* cache = std::get_if<KeyValueCache>(&kv);
  if (cache == nullptr || cache->layout.scale_bytes() == 0) return false;
  for (int i = 0; i < slots.runs; ++i) {
    const Run& run = slots.run[i];
    const int64_t at = cache->layout.scale_at(run.slot, kv_head);
    const auto bytes = static_cast<size_t>(run.count) * sizeof(float);
    std::memcpy(key_scales + run.at, cache->keys + at, bytes);
    std::memcpy(value_scales + run.at, cache->values + at, bytes);
  }
  std::fill(key_scales + slots.count, key_scales + kKeys, 0.0f);
  std::fill(value_scales + slots.count, value_scales + kKeys, 0.0f);
  return true;
}

namespace {
void prefetch(const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(from) + at);
}
}  // namespace

void prefetch_block(const KeyValueView& kv, const BlockSlots& slots, int kv_head, int head_dim) {
  for (int i = 0; i < slots.runs; ++i) {
    const Run& run = slots.run[i];
    if (const auto* rows = std::get_if<KeyValueRows>(&kv)) {
      for (int32_t j = 0; j < run.count; ++j) {
        const int64_t at = (run.slot + j) * rows->stride + int64_t{kv_head} * head_dim;
        prefetch(rows->keys + at, head_dim * int64_t{sizeof(float)});
        prefetch(rows->values + at, head_dim * int64_t{sizeof(float)});
      }
      continue;
    }
    const auto& cache = std::get<KeyValueCache>(kv);
    const KvLayout& layout = cache.layout;
    const int64_t key_step = int64_t{kKvSlots} * layout.element_bytes();
    const std::byte* key = cache.keys + layout.key_at(run.slot, kv_head);
    for (int d = 0; d < head_dim; ++d) prefetch(key + d * key_step, int64_t{run.count} * layout.element_bytes());
    prefetch(cache.values + layout.value_at(run.slot, kv_head),
             int64_t{run.count} * layout.padded() * layout.element_bytes());
  }
}

}  // namespace thimble::attention
