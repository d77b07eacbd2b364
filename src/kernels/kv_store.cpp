#include "kernels/kv_store.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>

#include "core/cpu.h"
#include "kernels/attention_block.h"
#include "kernels/kv_cast.h"
#include "kernels/kv_cast_avx512.h"
#include "kernels/rotate_heads.h"
#include "kernels/scratch.h"
#include "kernels/simd.h"

namespace thimble {
namespace {
using simd::kLanes;

// A head's scale, and what its elements are multiplied with before they are rounded.
struct Scale {
  float scale = 0;
  float inverse = 0;
};

Scale scale_of(const float* x, int head_dim) {
  int32_t largest = 0;  // as bits, whose order is that of the magnitudes; NaN is above all
  simd::with_simd([&]() __attribute__((always_inline)) {
    simd::I32 most{};
    int d = 0;
    for (; d + kLanes <= head_dim; d += static_cast<int>(kLanes)) {
      const simd::I32 bits = reinterpret_cast<simd::I32>(simd::load(x + d)) & 0x7fffffff;
      most = bits > most ? bits : most;
    }
    for (; d < head_dim; ++d) {
      const int32_t bits = __builtin_bit_cast(int32_t, x[d]) & 0x7fffffff;
      largest = bits > largest ? bits : largest;
    }
    for (int i = 0; i < kLanes; ++i) largest = most[i] > largest ? most[i] : largest;
  });
  const float magnitude = std::bit_cast<float>(largest);
  if (!std::isfinite(magnitude)) return {magnitude, 0};  // elements become 0, and times the scale NaN
  if (magnitude < 1e-30f) return {};                     // the inverse would be infinite
  return {magnitude / 127, 127 / magnitude};
}

Scale scale_of(const KvLayout& layout, const float* x) {
  return layout.type == KvType::kQ8 ? scale_of(x, layout.head_dim) : Scale{};
}

void put_scale(const KvLayout& layout, float scale, int32_t slot, int kv_head, std::byte* storage) {
  if (layout.type == KvType::kQ8) std::memcpy(storage + layout.scale_at(slot, kv_head), &scale, sizeof scale);
}

template <int kBytes>
void scatter(const std::byte* from, int count, std::byte* to) {
  for (int d = 0; d < count; ++d) std::memcpy(to + int64_t{d} * kKvSlots * kBytes, from + d * kBytes, kBytes);
}

void store_key(const KvLayout& layout, const float* x, int32_t slot, int kv_head, KvNarrow* narrow, std::byte* keys) {
  alignas(64) std::byte narrowed[attention::kMaxHead * sizeof(float)];
  const Scale scale = scale_of(layout, x);
  put_scale(layout, scale.scale, slot, kv_head, keys);
  narrow(x, layout.head_dim, scale.inverse, narrowed);
  std::byte* to = keys + layout.key_at(slot, kv_head);
  switch (layout.element_bytes()) {
    case 1: return scatter<1>(narrowed, layout.head_dim, to);
    case 2: return scatter<2>(narrowed, layout.head_dim, to);
    default: return scatter<4>(narrowed, layout.head_dim, to);
  }
}

#if defined(__x86_64__)
// 16 rows to slots that follow each other in one block: whole vectors of slots.
template <KvType kType>
THIMBLE_KV_512 void store_16_keys(const KvLayout& layout, const float* rows, int64_t width, int32_t slot, int kv_head,
                                  std::byte* keys) {
  alignas(64) float inverse[16] = {};
  if constexpr (kType == KvType::kQ8)
    for (int i = 0; i < 16; ++i) {
      const Scale scale = scale_of(rows + i * width, layout.head_dim);
      inverse[i] = scale.inverse;
      put_scale(layout, scale.scale, slot + i, kv_head, keys);
    }
  const __m512 inverses = _mm512_load_ps(inverse);
  std::byte* to = keys + layout.key_at(slot, kv_head);
  for (int d = 0; d < layout.head_dim; d += 16) {
    const int left = std::min(16, layout.head_dim - d);
    const auto mask = static_cast<__mmask16>((1u << left) - 1);
    __m512 r[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) r[i] = _mm512_maskz_loadu_ps(mask, rows + i * width + d);
    transpose16(r);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      if (i < left)
        narrow16<kType>(r[i], inverses, 0xffff, to + int64_t{d + i} * kKvSlots * layout.element_bytes());
  }
}

using Store16 = void(const KvLayout&, const float*, int64_t, int32_t, int, std::byte*);
Store16* store_16_keys(KvType type) {
  switch (type) {
    case KvType::kF32: return store_16_keys<KvType::kF32>;
    case KvType::kF16: return store_16_keys<KvType::kF16>;
    case KvType::kBF16: return store_16_keys<KvType::kBF16>;
    case KvType::kQ8: return store_16_keys<KvType::kQ8>;
  }
  return nullptr;
}
#endif

// Whether the first 16 of these slots follow each other in one block.
bool follow_each_other(const int32_t* slots, int64_t count) {
  if (count < 16 || slots[0] % kKvSlots > kKvSlots - 16) return false;
  for (int i = 1; i < 16; ++i)
    if (slots[i] != slots[0] + i) return false;
  return true;
}

}  // namespace

void store_keys(const KvLayout& layout, const float* rows, int64_t count, const int32_t* slots, std::byte* keys) {
  assert(layout.head_dim <= attention::kMaxHead);
  const int64_t width = int64_t{layout.kv_heads} * layout.head_dim;
  const Scratch<float> rotated(layout.rotates_keys() ? static_cast<size_t>(count * width) : 0);
  if (layout.rotates_keys()) {
    std::copy(rows, rows + count * width, rotated.data());
    rotate_heads(rotated.data(), count * layout.kv_heads, layout.head_dim);
    rows = rotated.data();
  }
  KvNarrow* const narrow = kv_narrow(layout.type);
  [[maybe_unused]] const bool fast = cpu_level() >= CpuLevel::kAvx512;
  for (int64_t r = 0; r < count;) {
    const float* row = rows + r * width;
#if defined(__x86_64__)
    if (fast && follow_each_other(slots + r, count - r)) {
      for (int h = 0; h < layout.kv_heads; ++h)
        store_16_keys(layout.type)(layout, row + h * layout.head_dim, width, slots[r], h, keys);
      r += 16;
      continue;
    }
#endif
    for (int h = 0; h < layout.kv_heads; ++h) store_key(layout, row + h * layout.head_dim, slots[r], h, narrow, keys);
    r += 1;
  }
}

void store_values(const KvLayout& layout, const float* rows, int64_t count, const int32_t* slots, std::byte* values) {
  KvNarrow* const narrow = kv_narrow(layout.type);
  const float* x = rows;
  for (int64_t r = 0; r < count; ++r)
    for (int h = 0; h < layout.kv_heads; ++h, x += layout.head_dim) {
      const Scale scale = scale_of(layout, x);
      put_scale(layout, scale.scale, slots[r], h, values);
      narrow(x, layout.head_dim, scale.inverse, values + layout.value_at(slots[r], h));
    }
}

}  // namespace thimble
