#include "kernels/attention_few_rows.h"

#include <algorithm>
#include <cassert>

#include "core/cpu.h"
#include "kernels/kv_cast_avx512.h"

namespace thimble::attention {

bool has_few_rows() { return cpu_level() >= CpuLevel::kAvx512; }

#if defined(__x86_64__)
namespace {

constexpr int kMostRows = 4;  // at a time: 4 x 4 sums in registers

template <KvType kType>
constexpr int kBytes = kType == KvType::kF32 ? 4 : kType == KvType::kQ8 ? 1 : 2;

[[gnu::always_inline]] inline void ask_for(const std::byte* next, int bytes) {
  for (int at = 0; at < bytes; at += 64) __builtin_prefetch(next + at);
}

// kWidth vectors of 16 slots, the first of them at `keys`; `next` is as long as what is read here.
template <KvType kType, int kRows, int kWidth>
THIMBLE_KV_512 __attribute__((always_inline)) inline void score_tile(const float* q, int head_dim,
                                                                     const std::byte* keys, const std::byte* next,
                                                                     __m512 (&sum)[kRows][kWidth]) {
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kWidth; ++v) sum[r][v] = _mm512_setzero_ps();
  for (int d = 0; d < head_dim; ++d) {
    __m512 column[kWidth];
#pragma GCC unroll 4
    for (int v = 0; v < kWidth; ++v) column[v] = widen16<kType>(keys + 16 * v * kBytes<kType>);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kWidth; ++v)
        sum[r][v] = _mm512_fmadd_ps(_mm512_set1_ps(q[r * head_dim + d]), column[v], sum[r][v]);
    ask_for(next, kKvSlots * kBytes<kType>);
    keys += kKvSlots * kBytes<kType>;
    next += kKvSlots * kBytes<kType>;
  }
}

// A run's scores; `keys` at the first slot of the run's block.
template <KvType kType, int kRows, int kWidth>
THIMBLE_KV_512 void score_run(const float* q, int head_dim, const std::byte* keys, const std::byte* next,
                              const Run& run, float* scores) {
  const int first = run.slot % kKvSlots, last = first + run.count, lane = first / 16 * 16;
  __m512 sum[kRows][kWidth];
  score_tile<kType, kRows, kWidth>(q, head_dim, keys + lane * kBytes<kType>, next, sum);
  const uint64_t wanted = (last == 64 ? ~uint64_t{0} : (uint64_t{1} << last) - 1) >> first << first >> lane;
#pragma GCC unroll 4
  for (int v = 0; v < kWidth; ++v) {
    const auto mask = static_cast<__mmask16>(wanted >> (16 * v));
    float* to = scores + run.at - first + lane + 16 * v;  // up to 15 lanes in front are masked out
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) _mm512_mask_storeu_ps(to + r * kKeys, mask, sum[r][v]);
  }
}

template <KvType kType, int kRows>
void score_rows(const KeyValueCache& kv, const BlockSlots& slots, const NextBlock& next, int kv_head, const float* q,
                float* scores) {
  const int head_dim = kv.layout.head_dim;
  for (int i = 0; i < slots.runs; ++i) {
    const Run& run = slots.run[i];
    const std::byte* head = kv.keys + kv.layout.head_at(run.slot, kv_head) + kv.layout.scale_bytes();
    const std::byte* ahead = i == 0 && next.keys != nullptr ? next.keys + kv.layout.scale_bytes() : head;
    const int first = run.slot % kKvSlots;
    switch ((first + run.count + 15) / 16 - first / 16) {
      case 1: score_run<kType, kRows, 1>(q, head_dim, head, ahead, run, scores); break;
      case 2: score_run<kType, kRows, 2>(q, head_dim, head, ahead, run, scores); break;
      case 3: score_run<kType, kRows, 3>(q, head_dim, head, ahead, run, scores); break;
      default: score_run<kType, kRows, 4>(q, head_dim, head, ahead, run, scores); break;
    }
  }
}

// kWidth vectors of the values' elements from element d on.
template <KvType kType, int kRows, int kWidth>
THIMBLE_KV_512 void value_tile(const KeyValueCache& kv, const BlockSlots& slots, const std::byte* next, int kv_head,
                               int d, const float* weights, int depth, const float* scale, float* sum) {
  const int padded = kv.layout.padded();
  const int row_bytes = padded * kBytes<kType>;
  __m512 total[kRows][kWidth];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kWidth; ++v)
      total[r][v] = _mm512_mul_ps(_mm512_loadu_ps(sum + r * padded + d + 16 * v), _mm512_set1_ps(scale[r]));
  for (int i = 0; i < slots.runs; ++i) {
    const Run& run = slots.run[i];
    const std::byte* value = kv.values + kv.layout.value_at(run.slot, kv_head) + d * kBytes<kType>;
    if (next == nullptr) next = value;
    const int last = std::min(run.at + run.count, depth);
    for (int j = run.at; j < last; ++j) {
      __m512 element[kWidth];
#pragma GCC unroll 4
      for (int v = 0; v < kWidth; ++v) element[v] = widen16<kType>(value + 16 * v * kBytes<kType>);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kWidth; ++v)
          total[r][v] = _mm512_fmadd_ps(_mm512_set1_ps(weights[r * kKeys + j]), element[v], total[r][v]);
      ask_for(next, 16 * kWidth * kBytes<kType>);
      value += row_bytes;
      next += row_bytes;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kWidth; ++v) _mm512_storeu_ps(sum + r * padded + d + 16 * v, total[r][v]);
}

template <KvType kType, int kRows>
void value_rows(const KeyValueCache& kv, const BlockSlots& slots, const NextBlock& next, int kv_head,
                const float* weights, int depth, const float* scale, float* sum) {
  const int padded = kv.layout.padded();
  for (int d = 0; d < padded;) {
    const std::byte* ahead =
        next.values == nullptr ? nullptr : next.values + kv.layout.scale_bytes() + d * kBytes<kType>;
    if (padded - d >= 64) {
      value_tile<kType, kRows, 4>(kv, slots, ahead, kv_head, d, weights, depth, scale, sum);
      d += 64;
    } else {
      value_tile<kType, kRows, 1>(kv, slots, ahead, kv_head, d, weights, depth, scale, sum);
      d += 16;
    }
  }
}

// Calls body with 1 to 4 rows at a time, the number as a constant: of 5 rows 3 and 2.
template <class Body>
void in_rows(int rows, const Body& body) {
  for (int r = 0; r < rows;) {
    const int left = rows - r;
    const int take = left == kMostRows + 1 ? 3 : std::min(left, kMostRows);
    switch (take) {
      case 1: body.template operator()<1>(r); break;
      case 2: body.template operator()<2>(r); break;
      case 3: body.template operator()<3>(r); break;
      default: body.template operator()<4>(r); break;
    }
    r += take;
  }
}

template <class Body>
void with_type(KvType type, const Body& body) {
  switch (type) {
    case KvType::kF32: return body.template operator()<KvType::kF32>();
    case KvType::kF16: return body.template operator()<KvType::kF16>();
    case KvType::kBF16: return body.template operator()<KvType::kBF16>();
    case KvType::kQ8: return body.template operator()<KvType::kQ8>();
  }
}

}  // namespace

void few_scores(const KeyValueCache& kv, const BlockSlots& slots, const NextBlock& next, int kv_head, const float* q,
                int rows, float* scores) {
  if (slots.count < kKeys)
    for (int r = 0; r < rows; ++r) std::fill(scores + r * kKeys + slots.count, scores + (r + 1) * kKeys, 0.0f);
  if (next.keys != nullptr) ask_for(next.keys, static_cast<int>(kv.layout.scale_bytes()));
  with_type(kv.layout.type, [&]<KvType kType>() {
    in_rows(rows, [&]<int kRows>(int r) {
      score_rows<kType, kRows>(kv, slots, next, kv_head, q + r * kv.layout.head_dim, scores + r * kKeys);
    });
  });
}

void few_values(const KeyValueCache& kv, const BlockSlots& slots, const NextBlock& next, int kv_head,
                const float* weights, int depth, const float* scale, int rows, float* sum) {
  if (next.values != nullptr) ask_for(next.values, static_cast<int>(kv.layout.scale_bytes()));
  with_type(kv.layout.type, [&]<KvType kType>() {
    in_rows(rows, [&]<int kRows>(int r) {
      value_rows<kType, kRows>(kv, slots, next, kv_head, weights + r * kKeys, depth, scale + r,
                               sum + r * kv.layout.padded());
    });
  });
}
#else
void few_scores(const KeyValueCache&, const BlockSlots&, const NextBlock&, int, const float*, int, float*) {
  assert(false);
}
void few_values(const KeyValueCache&, const BlockSlots&, const NextBlock&, int, const float*, int, const float*, int,
                float*) {
  assert(false);
}
#endif

}  // namespace thimble::attention
