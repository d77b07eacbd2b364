#if defined(__x86_64__)

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/attention_bf16.h"
#include "kernels/attention_bf16_tools.h"
#include "kernels/scratch.h"
#include "kernels/unpack_bf16.h"

namespace thimble {
namespace attention_bf16 {
namespace {

// Tasks of about equal cost: more than threads, so that they finish together, and few, because each sums up gradients
// of keys and values of its own.
constexpr int kTasks = 12;

// Consecutive query blocks, and the tiles of theirs by key block.
struct Part {
  int32_t first_query = 0, last_query = 0;  // blocks
  int32_t first_key = 0, last_key = 0;      // blocks, all that are touched between
  int64_t place = 0;                        // among all parts' key blocks
  std::vector<const AttentionTiles::Tile*> tiles;
};

std::vector<Part> make_parts(const AttentionTiles& tiles, int wanted) {
  std::vector<Part> parts;
  const auto total = static_cast<int64_t>(tiles.tiles.size());
  for (int32_t block = 0; block < tiles.query_blocks;) {
    Part part;
    part.first_query = block;
    const auto until = (static_cast<int64_t>(parts.size()) + 1) * total / wanted;
    do ++block;
    while (block < tiles.query_blocks && tiles.first_tile[static_cast<size_t>(block) + 1] <= until);
    part.last_query = block;
    const int32_t first = tiles.first_tile[static_cast<size_t>(part.first_query)];
    const int32_t last = tiles.first_tile[static_cast<size_t>(part.last_query)];
    for (int32_t t = first; t < last; ++t) part.tiles.push_back(&tiles.tiles[static_cast<size_t>(t)]);
    std::stable_sort(part.tiles.begin(), part.tiles.end(),
                     [](const auto* a, const auto* b) { return a->key_block < b->key_block; });
    if (part.tiles.empty()) continue;
    part.first_key = part.tiles.front()->key_block;
    part.last_key = part.tiles.back()->key_block + 1;
    part.place = parts.empty() ? 0 : parts.back().place + parts.back().last_key - parts.back().first_key;
    parts.push_back(std::move(part));
  }
  return parts;
}

struct Call {
  const AttentionTiles& tiles;
  const AttentionShape& shape;
  Tensor q, dout;               // bf16 [query_rows, heads * head_dim]
  const float* lse;             // [heads][padded], in powers of two
  const float* delta;           // [heads][padded]: sum of probability · its gradient over a query's keys
  const uint16_t* keys;         // [kv_head][block][key][head_dim]
  const uint16_t* values;       // the same
  const uint16_t* keys_turned;  // [kv_head][block][head_dim][key]
  float* dq;

  int64_t padded() const { return int64_t{tiles.query_blocks} * kQueries; }
};

// A half tile's scores and gradients of probabilities [kKeys][kQueries] become probabilities and gradients of the
// scores over the scale: rows of bf16 [kKeys][kQueries], and the latter also as a panel [key / 2][kHalf][2].
THIMBLE_AVX512_BF16 void gradient_of_scores(const float* scores, const float* dp, int first, int last,
                                            const AttentionTiles::Masks* masks, int lanes, float scale,
                                            const float* lse, const float* delta, uint16_t* p_rows, uint16_t* ds_rows,
                                            uint16_t* ds_panel) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __m512 log[2] = {_mm512_loadu_ps(lse), _mm512_loadu_ps(lse + 16)};
  const __m512 mean[2] = {_mm512_loadu_ps(delta), _mm512_loadu_ps(delta + 16)};
  for (int k = first; k < last; k += 2) {
    __m512 ds[2][2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int at = (k + i) * kQueries + lanes;
      __m512 p[2];
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        p[v] = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + at + 16 * v), factor, log[v]));
        p[v] = _mm512_maskz_mov_ps(seen(masks, k + i, lanes + 16 * v), p[v]);
        ds[i][v] = _mm512_mul_ps(p[v], _mm512_sub_ps(_mm512_loadu_ps(dp + at + 16 * v), mean[v]));
      }
      _mm512_storeu_si512(p_rows + at, (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]));
      _mm512_storeu_si512(ds_rows + at, (__m512i)_mm512_cvtne2ps_pbh(ds[i][1], ds[i][0]));
    }
    uint16_t* const to = ds_panel + k * kHalf;
    _mm512_storeu_si512(to, paired(ds[0][0], ds[1][0]));
    _mm512_storeu_si512(to + kHalf, paired(ds[0][1], ds[1][1]));
  }
}

// A part's queries of one head, as the products read them, and their gradient.
class HeadPart {
 public:
  HeadPart(const Call& call, const Part& part, int head)
      : call_(call),
        part_(part),
        head_(head),
        dim_(call.shape.head_dim),
        panel_(int64_t{kQueries} * kHalf),
        panels_((dim_ + kHalf - 1) / kHalf * panel_),
        q_turned_(size(int64_t{kQueries} * dim_)),
        dout_turned_(size(int64_t{kQueries} * dim_)),
        q_panels_(size(panels_)),
        dout_panels_(size(panels_)),
        dq_(size(int64_t{kQueries} * dim_)) {
    std::fill_n(dq_.data(), size(int64_t{kQueries} * dim_), 0.0f);
    for (int32_t block = part.first_query; block < part.last_query; ++block) {
      const int64_t row = int64_t{block} * kQueries;
      const auto count = static_cast<int>(std::min<int64_t>(kQueries, call.tiles.query_rows - row));
      pack(call.q, row, count, q_turned_.data() + turned_at(block), q_panels_.data() + panels_at(block));
      pack(call.dout, row, count, dout_turned_.data() + turned_at(block), dout_panels_.data() + panels_at(block));
    }
  }

  // dk and dv [kKeys][head_dim] of the tile's keys are added to.
  void add(const AttentionTiles::Tile& tile, int64_t key_place, float* dk, float* dv) const {
    const auto* masks = tile.masks < 0 ? nullptr : &call_.tiles.masks[static_cast<size_t>(tile.masks)];
    const int64_t turned = turned_at(tile.query_block), row = int64_t{tile.query_block} * kQueries;
    alignas(64) float scores[kKeys * kQueries], dp[kKeys * kQueries];
    alignas(64) uint16_t p_rows[kKeys * kQueries], ds_rows[kKeys * kQueries], ds_panel[kKeys * kHalf];
    int low = kKeys, high = 0, begin = kQueries, end = 0;  // keys and queries that are part of it
    for (int half = 0; half < 2; ++half) {
      const int first = tile.key_first[half], last = tile.key_last[half], lanes = half * kHalf;
      if (first >= last) continue;
      low = std::min(low, first), high = std::max(high, last);
      begin = std::min(begin, lanes), end = lanes + kHalf;
    }
    for (int lanes = begin; lanes < end; lanes += kHalf) {
      const int first = tile.key_first[lanes / kHalf], last = tile.key_last[lanes / kHalf];
      for (int k = low; k < high; ++k) {  // what this half doesn't see of what the other one does
        if (k == first) k = last;
        if (k >= high) break;
        std::memset(p_rows + k * kQueries + lanes, 0, kHalf * sizeof(uint16_t));
        std::memset(ds_rows + k * kQueries + lanes, 0, kHalf * sizeof(uint16_t));
      }
      const int64_t keys = key_place + first * dim_, queries = turned + lanes * dim_;
      product(last - first, kHalf, call_.keys + keys, dim_, dim_, q_turned_.data() + queries, 0,
              scores + first * kQueries + lanes, kQueries, false);
      product(last - first, kHalf, call_.values + keys, dim_, dim_, dout_turned_.data() + queries, 0,
              dp + first * kQueries + lanes, kQueries, false);
      const int64_t stats = head_ * call_.padded() + row + lanes;
      gradient_of_scores(scores, dp, first, last, masks, lanes, call_.shape.scale * kLog2E, call_.lse + stats,
                         call_.delta + stats, p_rows, ds_rows, ds_panel);
      product(dim_, kHalf, call_.keys_turned + key_place + first, kKeys, last - first, ds_panel + first * kHalf, 0,
              dq_.data() + turned + lanes * dim_, kHalf, true);
    }
    const int64_t panels = panels_at(tile.query_block) + begin * kHalf;
    product(high - low, dim_, ds_rows + low * kQueries + begin, kQueries, end - begin, q_panels_.data() + panels,
            panel_, dk + low * dim_, dim_, true);
    product(high - low, dim_, p_rows + low * kQueries + begin, kQueries, end - begin, dout_panels_.data() + panels,
            panel_, dv + low * dim_, dim_, true);
  }

  void store() const {
    const int64_t stride = int64_t{call_.shape.heads} * dim_;
    float scale[kHalf];
    std::fill_n(scale, kHalf, call_.shape.scale);
    for (int64_t row = int64_t{part_.first_query} * kQueries;
         row < std::min(int64_t{part_.last_query} * kQueries, call_.tiles.query_rows); row += kHalf)
      store_turned(dq_.data() + (row - int64_t{part_.first_query} * kQueries) * dim_, dim_, scale,
                   static_cast<int>(std::min<int64_t>(kHalf, call_.tiles.query_rows - row)),
                   call_.dq + row * stride + head_ * dim_, stride);
  }

 private:
  size_t size(int64_t a_block) const { return static_cast<size_t>((part_.last_query - part_.first_query) * a_block); }
  int64_t turned_at(int32_t block) const { return (block - part_.first_query) * int64_t{kQueries} * dim_; }
  int64_t panels_at(int32_t block) const { return (block - part_.first_query) * panels_; }

  void pack(const Tensor& from, int64_t row, int count, uint16_t* turned, uint16_t* panels) const {
    const gemm::Kernels<uint16_t>& kernels = gemm::bf16_kernels();
    const int64_t column = int64_t{head_} * dim_;
    for (int first = 0; first < kQueries; first += kHalf)
      if (first < count)
        kernels.pack_rows(from, row + first, std::min(kHalf, count - first), column, dim_, kHalf,
                          turned + first * dim_);
      else
        std::memset(turned + first * dim_, 0, static_cast<size_t>(kHalf) * dim_ * sizeof(uint16_t));
    if (count < kQueries) std::memset(panels, 0, static_cast<size_t>(panels_) * sizeof(uint16_t));
    kernels.pack_cols(from, column, dim_, row, count, kHalf, panels, panel_);
  }

  const Call& call_;
  const Part& part_;
  const int head_, dim_;
  const int64_t panel_, panels_;                    // elements, of one and of a block's
  const Scratch<uint16_t> q_turned_, dout_turned_;  // [block][half]: lanes over queries, pairs along the head
  const Scratch<uint16_t> q_panels_, dout_panels_;  // [block]: lanes over the head, pairs along queries
  const Scratch<float> dq_;                         // [block][half][head_dim][kHalf]
};

// dout rounded, and what it says of every query: delta.
THIMBLE_AVX512_BF16 void round_row(const float* dout, const float* out, int heads, int dim, uint16_t* rounded,
                                   float* delta, int64_t delta_stride) {
  round_bf16(dout, int64_t{heads} * dim, 1, rounded);
  for (int h = 0; h < heads; ++h) {
    __m512 sum = _mm512_setzero_ps();
    for (int d = 0; d < dim; d += 16) {
      const auto mask = static_cast<__mmask16>((1u << std::min(16, dim - d)) - 1);
      const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, rounded + h * dim + d));
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)),
                            _mm512_maskz_loadu_ps(mask, out + h * dim + d), sum);
    }
    delta[h * delta_stride] = _mm512_reduce_add_ps(sum);
  }
}

}  // namespace
}  // namespace attention_bf16

void attention_bf16_backward(const AttentionTiles& tiles, const AttentionInputs& in, const AttentionShape& shape,
                             const float* out, const float* lse, const float* dout, float* dq, float* dk, float* dv) {
  using namespace attention_bf16;
  assert(has_attention_bf16(shape) && shape.heads % shape.kv_heads == 0);
  const int dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const int64_t rows = tiles.query_rows, q_cols = int64_t{shape.heads} * dim, k_cols = int64_t{shape.kv_heads} * dim;
  const int64_t padded = int64_t{tiles.query_blocks} * kQueries, block_elements = int64_t{kKeys} * dim;
  const auto blocks = static_cast<int64_t>(tiles.key_blocks.size());

  const Scratch<uint16_t> dout_rounded(static_cast<size_t>(rows * q_cols));
  const Scratch<float> stats(static_cast<size_t>(2 * shape.heads * padded));
  float* const logs = stats.data();
  float* const delta = stats.data() + shape.heads * padded;
  threads().parallel_for(tiles.query_blocks, [&](int64_t block, int) {
    for (int64_t row = block * kQueries; row < (block + 1) * kQueries; ++row) {
      for (int h = 0; h < shape.heads; ++h) {
        logs[h * padded + row] = row < rows ? lse[row * shape.heads + h] * kLog2E : 0;
        delta[h * padded + row] = 0;
      }
      if (row < rows)
        round_row(dout + row * q_cols, out + row * q_cols, shape.heads, dim, dout_rounded.data() + row * q_cols,
                  delta + row, padded);
    }
  });
  const auto packed_size = static_cast<size_t>(shape.kv_heads * blocks * block_elements);
  const Scratch<uint16_t> keys(packed_size), values(packed_size), keys_turned(packed_size);
  threads().parallel_for(shape.kv_heads * blocks, [&](int64_t task, int) {
    const KeyRange range = tiles.key_blocks[static_cast<size_t>(task % blocks)];
    const int64_t from = range.first * k_cols + task / blocks * dim, to = task * block_elements;
    pack_rows(in.k + from, k_cols, range.count, dim, keys.data() + to);
    pack_rows(in.v + from, k_cols, range.count, dim, values.data() + to);
    pack_turned(in.k + from, k_cols, range.count, dim, keys_turned.data() + to);
  });

  const Call call{tiles,
                  shape,
                  matrix(in.q, rows, q_cols),
                  matrix(dout_rounded.data(), rows, q_cols),
                  logs,
                  delta,
                  keys.data(),
                  values.data(),
                  keys_turned.data(),
                  dq};
  const std::vector<Part> parts = make_parts(tiles, (kTasks + shape.kv_heads - 1) / shape.kv_heads);
  const int64_t sums_blocks = parts.empty() ? 0 : parts.back().place + parts.back().last_key - parts.back().first_key;
  const int64_t sums_head = sums_blocks * 2 * block_elements;
  const Scratch<float> sums(static_cast<size_t>(shape.kv_heads * sums_head));  // [kv_head][part's block]: dk, then dv
  threads().parallel_for(static_cast<int64_t>(parts.size()) * shape.kv_heads, [&](int64_t task, int) {
    const Part& part = parts[static_cast<size_t>(task / shape.kv_heads)];
    const auto kv_head = static_cast<int>(task % shape.kv_heads);
    float* const own = sums.data() + kv_head * sums_head + part.place * 2 * block_elements;
    std::fill_n(own, (part.last_key - part.first_key) * 2 * block_elements, 0.0f);
    for (int h = 0; h < group; ++h) {
      const HeadPart head(call, part, kv_head * group + h);
      for (const AttentionTiles::Tile* tile : part.tiles) {
        float* const of_block = own + (tile->key_block - part.first_key) * 2 * block_elements;
        head.add(*tile, (kv_head * blocks + tile->key_block) * block_elements, of_block, of_block + block_elements);
      }
      head.store();
    }
  });
  threads().parallel_for(blocks, [&](int64_t block, int) {
    const KeyRange range = tiles.key_blocks[static_cast<size_t>(block)];
    for (int64_t r = 0; r < range.count; ++r) {
      float* const dk_row = dk + (range.first + r) * k_cols;
      float* const dv_row = dv + (range.first + r) * k_cols;
      std::fill_n(dk_row, k_cols, 0.0f);
      std::fill_n(dv_row, k_cols, 0.0f);
      for (int kv_head = 0; kv_head < shape.kv_heads; ++kv_head)
        for (const Part& part : parts) {
          if (block < part.first_key || block >= part.last_key) continue;
          const float* from =
              sums.data() + kv_head * sums_head + (part.place + block - part.first_key) * 2 * block_elements + r * dim;
          for (int d = 0; d < dim; ++d) {
            dk_row[kv_head * dim + d] += from[d] * shape.scale;
            dv_row[kv_head * dim + d] += from[block_elements + d];
          }
        }
    }
  });
}

}  // namespace thimble

#endif
