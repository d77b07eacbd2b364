#include "kernels/attention_bf16.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "core/cpu.h"
#include "core/thread_pool.h"
#include "kernels/attention_bf16_tools.h"
#include "kernels/scratch.h"

namespace thimble {

bool has_attention_bf16(const AttentionShape& shape) {
  return cpu_level() >= CpuLevel::kAvx512Bf16 && shape.head_dim % 2 == 0 && shape.head_dim <= 256;
}

#if defined(__x86_64__)

namespace attention_bf16 {

void pack_rows(const uint16_t* from, int64_t stride, int count, int cols, uint16_t* to) {
  const auto bytes = static_cast<size_t>(cols) * sizeof(uint16_t);
  for (int r = 0; r < count; ++r) std::memcpy(to + r * cols, from + r * stride, bytes);
  std::memset(to + count * cols, 0, static_cast<size_t>(kKeys - count) * bytes);
}

THIMBLE_AVX512_BF16 void pack_turned(const uint16_t* from, int64_t stride, int count, int cols, uint16_t* to) {
  const Scratch<uint16_t> pairs(static_cast<size_t>(cols) * kKeys);  // [cols / 2][kKeys][2]
  gemm::bf16_kernels().pack_rows(matrix(from, count, stride), 0, count, 0, cols, kKeys, pairs.data());
  const __m512i even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24,
                                        22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
  for (int c = 0; c < cols; c += 2)
    for (int first = 0; first < kKeys; first += kHalf) {
      const uint16_t* pair = pairs.data() + c * kKeys + 2 * first;
      const __m512i low = _mm512_loadu_si512(pair), high = _mm512_loadu_si512(pair + 32);
      _mm512_storeu_si512(to + c * kKeys + first, _mm512_permutex2var_epi16(low, even, high));
      _mm512_storeu_si512(to + (c + 1) * kKeys + first, _mm512_permutex2var_epi16(low, odd, high));
    }
}

THIMBLE_AVX512_BF16 void store_turned(const float* turned, int dim, const float* factor, int count, float* to,
                                      int64_t stride) {
  for (int lane = 0; lane < count; lane += 16) {
    const __m512 factors = _mm512_loadu_ps(factor + lane);
    for (int d = 0; d < dim; d += 16) {
      const auto columns = static_cast<__mmask16>((1u << std::min(16, dim - d)) - 1);
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = d + i < dim
                   ? _mm512_castps_si512(_mm512_mul_ps(_mm512_loadu_ps(turned + (d + i) * kHalf + lane), factors))
                   : _mm512_setzero_si512();
      transpose(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (lane + i < count) _mm512_mask_storeu_ps(to + (lane + i) * stride + d, columns, _mm512_castsi512_ps(r[i]));
    }
  }
}

namespace {

// What softmax has summed up for 32 queries of a head.
struct Sums {
  float top[kHalf];  // the largest score, in powers of two
  float total[kHalf];
  float* out;  // [head_dim][kHalf]
};

// One step of softmax along the keys [first, last) of scores [kKeys][kHalf]: `panels` gets the probabilities before
// division, [(last - first) / 2][kHalf][2]; what was summed up before is brought to the new largest scores.
THIMBLE_AVX512_BF16 void soften(const float* scores, int first, int last, const AttentionTiles::Masks* masks, int lanes,
                                float scale, int dim, Sums& sums, uint16_t* panels) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int v = 0; v < 2; ++v) {
    const float* column = scores + 16 * v;
    const __m512 before = _mm512_loadu_ps(sums.top + 16 * v);
    __m512 most[2] = {_mm512_set1_ps(-INFINITY), _mm512_set1_ps(-INFINITY)};
    for (int k = first; k < last; k += 2)
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i)
        most[i] = _mm512_mask_max_ps(most[i], seen(masks, k + i, lanes + 16 * v), most[i],
                                     _mm512_loadu_ps(column + (k + i) * kHalf));
    const __m512 top = _mm512_max_ps(before, _mm512_mul_ps(_mm512_max_ps(most[0], most[1]), factor));
    __m512 total[2] = {_mm512_loadu_ps(sums.total + 16 * v), _mm512_setzero_ps()};
    if (_mm512_cmp_ps_mask(top, before, _CMP_GT_OQ) != 0) {
      const __m512 older = exp2(_mm512_sub_ps(before, top));
      _mm512_storeu_ps(sums.top + 16 * v, top);
      total[0] = _mm512_mul_ps(total[0], older);
      for (int d = 0; d < dim; ++d) {
        float* const at = sums.out + d * kHalf + 16 * v;
        _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), older));
      }
    }
    uint16_t* to = panels + 32 * v;
    for (int k = first; k < last; k += 2, to += 2 * kHalf) {
      __m512 p[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        p[i] = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(column + (k + i) * kHalf), factor, top));
        p[i] = _mm512_maskz_mov_ps(seen(masks, k + i, lanes + 16 * v), p[i]);
        total[i] = _mm512_add_ps(total[i], p[i]);
      }
      _mm512_storeu_si512(to, paired(p[0], p[1]));
    }
    _mm512_storeu_ps(sums.total + 16 * v, _mm512_add_ps(total[0], total[1]));
  }
}

// 64 queries of all heads that share a key head.
void run(const AttentionTiles& tiles, const AttentionInputs& in, const AttentionShape& shape, int kv_head,
         int32_t block, const uint16_t* keys, const uint16_t* values, float* out, float* lse) {
  const int dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const int64_t q_cols = int64_t{shape.heads} * dim, block_elements = int64_t{kKeys} * dim;
  const int64_t row = int64_t{block} * kQueries;
  const auto count = static_cast<int>(std::min<int64_t>(kQueries, tiles.query_rows - row));
  const Tensor q = matrix(in.q, tiles.query_rows, q_cols);
  const Scratch<uint16_t> panels(static_cast<size_t>(2 * group * kHalf * dim));  // [head][half]
  const Scratch<float> sums_memory(static_cast<size_t>(2 * group * kHalf * dim));
  const Scratch<Sums> sums(static_cast<size_t>(2 * group));
  for (int i = 0; i < 2 * group; ++i) {
    const int first = i % 2 * kHalf, head = kv_head * group + i / 2;
    Sums& s = sums[static_cast<size_t>(i)];
    s.out = sums_memory.data() + i * kHalf * dim;
    std::fill_n(s.out, kHalf * dim, 0.0f);
    std::fill_n(s.top, kHalf, -1e30f);
    std::fill_n(s.total, kHalf, 0.0f);
    if (first < count)
      gemm::bf16_kernels().pack_rows(q, row + first, std::min(kHalf, count - first), int64_t{head} * dim, dim, kHalf,
                                     panels.data() + i * kHalf * dim);
  }
  alignas(64) float scores[kKeys * kHalf];
  alignas(64) uint16_t weights[kKeys * kHalf];
  for (int32_t t = tiles.first_tile[static_cast<size_t>(block)]; t < tiles.first_tile[static_cast<size_t>(block) + 1];
       ++t) {
    const AttentionTiles::Tile& tile = tiles.tiles[static_cast<size_t>(t)];
    const auto* masks = tile.masks < 0 ? nullptr : &tiles.masks[static_cast<size_t>(tile.masks)];
    const uint16_t* k = keys + tile.key_block * block_elements;
    const uint16_t* v = values + tile.key_block * block_elements;
    for (int i = 0; i < 2 * group; ++i) {
      const int first = tile.key_first[i % 2], last = tile.key_last[i % 2];
      if (first >= last) continue;
      Sums& s = sums[static_cast<size_t>(i)];
      product(last - first, kHalf, k + first * dim, dim, dim, panels.data() + i * kHalf * dim, 0,
              scores + first * kHalf, kHalf, false);
      soften(scores, first, last, masks, i % 2 * kHalf, shape.scale * kLog2E, dim, s, weights);
      product(dim, kHalf, v + first, kKeys, last - first, weights, 0, s.out, kHalf, true);
    }
  }
  for (int i = 0; i < 2 * group; ++i) {
    const int first = i % 2 * kHalf, rows = std::min(kHalf, count - first);
    const int64_t head = int64_t{kv_head} * group + i / 2;
    const Sums& s = sums[static_cast<size_t>(i)];
    float share[kHalf] = {};
    for (int r = 0; r < rows; ++r) {
      share[r] = 1 / s.total[r];
      lse[(row + first + r) * shape.heads + head] = s.top[r] / kLog2E + std::log(s.total[r]);
    }
    if (rows > 0) store_turned(s.out, dim, share, rows, out + (row + first) * q_cols + head * dim, q_cols);
  }
}

}  // namespace
}  // namespace attention_bf16

void attention_bf16_forward(const AttentionTiles& tiles, const AttentionInputs& in, const AttentionShape& shape,
                            float* out, float* lse) {
  assert(has_attention_bf16(shape) && shape.heads % shape.kv_heads == 0);
  using attention_bf16::kKeys;
  const int dim = shape.head_dim;
  const int64_t k_cols = int64_t{shape.kv_heads} * dim, block_elements = int64_t{kKeys} * dim;
  const auto blocks = static_cast<int64_t>(tiles.key_blocks.size());
  const Scratch<uint16_t> keys(static_cast<size_t>(shape.kv_heads * blocks * block_elements));    // [head][block][key]
  const Scratch<uint16_t> values(static_cast<size_t>(shape.kv_heads * blocks * block_elements));  // turned
  threads().parallel_for(shape.kv_heads * blocks, [&](int64_t task, int) {
    const KeyRange range = tiles.key_blocks[static_cast<size_t>(task % blocks)];
    const int64_t from = range.first * k_cols + task / blocks * dim;
    attention_bf16::pack_rows(in.k + from, k_cols, range.count, dim, keys.data() + task * block_elements);
    attention_bf16::pack_turned(in.v + from, k_cols, range.count, dim, values.data() + task * block_elements);
  });
  threads().parallel_for(int64_t{shape.kv_heads} * tiles.query_blocks, [&](int64_t task, int) {
    const auto kv_head = static_cast<int>(task % shape.kv_heads);
    const int64_t place = kv_head * blocks * block_elements;
    attention_bf16::run(tiles, in, shape, kv_head, static_cast<int32_t>(task / shape.kv_heads), keys.data() + place,
                        values.data() + place, out, lse);
  });
}

#else

void attention_bf16_forward(const AttentionTiles&, const AttentionInputs&, const AttentionShape&, float*, float*) {
  assert(false);  // has_attention_bf16 is false everywhere
}
void attention_bf16_backward(const AttentionTiles&, const AttentionInputs&, const AttentionShape&, const float*,
                             const float*, const float*, float*, float*, float*) {
  assert(false);
}

#endif

}  // namespace thimble
