#include "kernels/attention_backward.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/scratch.h"
#include "kernels/simd.h"

namespace thimble {
namespace {

using simd::F32;
using simd::I32;
using simd::kLanes;

constexpr int64_t kTileRows = 8;
constexpr int64_t kQueryBlock =
    32;  // queries x keys of a block: scores and their gradients stay in a first-level cache
constexpr int64_t kKeyBlock = 64;

int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// c[8, 16 kVectors] += a[8, depth] · b[depth, 16 kVectors]; a's elements lie at a[row · a_row + k · a_k].
template <int kVectors>
[[gnu::always_inline]] inline void tile(const float* a, int64_t a_row, int64_t a_k, const float* b, int64_t b_row,
                                        int64_t depth, float* c, int64_t c_row, bool accumulate) {
  F32 sums[kTileRows][kVectors];
#pragma GCC unroll 8
  for (int m = 0; m < kTileRows; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[m][v] = accumulate ? simd::load(c + m * c_row + v * kLanes) : F32{};
  for (int64_t k = 0; k < depth; ++k) {
    F32 row[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) row[v] = simd::load(b + k * b_row + v * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kTileRows; ++m) {
      const F32 factor = simd::set(a[m * a_row + k * a_k]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[m][v] += factor * row[v];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kTileRows; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) simd::store(c + m * c_row + v * kLanes, sums[m][v]);
}

// c[rows, 16 vectors] (+)= a · b; rows a multiple of 8.
[[gnu::always_inline]] inline void product(int64_t rows, int64_t vectors, const float* a, int64_t a_row, int64_t a_k,
                                           const float* b, int64_t b_row, int64_t depth, float* c, int64_t c_row,
                                           bool accumulate) {
  for (int64_t m = 0; m < rows; m += kTileRows) {
    int64_t v = 0;
    for (; v + 2 <= vectors; v += 2)
      tile<2>(a + m * a_row, a_row, a_k, b + v * kLanes, b_row, depth, c + m * c_row + v * kLanes, c_row, accumulate);
    if (v < vectors)
      tile<1>(a + m * a_row, a_row, a_k, b + v * kLanes, b_row, depth, c + m * c_row + v * kLanes, c_row, accumulate);
  }
}

struct Inputs {
  const float* q;
  const float* k;
  const float* v;
  const float* out;
  const float* lse;
  const float* dout;
  const AttentionPlan* plan;
  AttentionShape shape;
};

// One segment's queries of the heads [first, last), which share a key head, side by side: [head][row][width], rows
// filled up to a multiple of the query block and width to whole vectors with zeros.
struct Queries {
  Queries(const Inputs& in, const AttentionSegment& s, int first, int last)
      : width(up(in.shape.head_dim, kLanes)),
        rows(up(s.query_count, kTileRows)),
        heads(last - first),
        q(static_cast<size_t>(heads * rows * width)),
        dout(static_cast<size_t>(heads * rows * width)),
        dq(static_cast<size_t>(heads * rows * width)),
        lse(static_cast<size_t>(heads * rows)),
        delta(static_cast<size_t>(heads * rows)) {
    const int64_t dim = in.shape.head_dim;
    std::fill_n(dq.data(), heads * rows * width, 0.0f);
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < rows; ++i) {
        float* to_q = q.data() + (h * rows + i) * width;
        float* to_dout = dout.data() + (h * rows + i) * width;
        const int64_t used = i < s.query_count ? dim : 0;
        std::fill(to_q + used, to_q + width, 0.0f);
        std::fill(to_dout + used, to_dout + width, 0.0f);
        lse[static_cast<size_t>(h * rows + i)] = delta[static_cast<size_t>(h * rows + i)] = 0;
        if (used == 0) continue;
        const int64_t head = (s.query_first + i) * in.shape.heads + first + h;
        std::copy_n(in.q + head * dim, dim, to_q);
        std::copy_n(in.dout + head * dim, dim, to_dout);
        lse[static_cast<size_t>(h * rows + i)] = in.lse[head];
        float sum = 0;  // of probability · its gradient over the row's keys
        for (int64_t d = 0; d < dim; ++d) sum += in.dout[head * dim + d] * in.out[head * dim + d];
        delta[static_cast<size_t>(h * rows + i)] = sum;
      }
  }

  int64_t width, rows, heads;
  Scratch<float> q, dout, dq, lse, delta;
};

// Up to kKeyBlock consecutive keys of one head, as rows and turned, and the sums of their gradients.
struct Keys {
  explicit Keys(int64_t head_width)
      : width(head_width),
        k(static_cast<size_t>(kKeyBlock * width)),
        k_turned(static_cast<size_t>(kKeyBlock * width)),
        v_turned(static_cast<size_t>(kKeyBlock * width)),
        dk(static_cast<size_t>(kKeyBlock * width)),
        dv(static_cast<size_t>(kKeyBlock * width)) {}

  void take(const Inputs& in, int64_t first_row, int64_t keys, int64_t key_position, int kv_head) {
    const int64_t dim = in.shape.head_dim, stride = in.shape.kv_heads * dim;
    count = keys;
    position = key_position;
    for (float* all : {k.data(), k_turned.data(), v_turned.data(), dk.data(), dv.data()})
      std::fill_n(all, kKeyBlock * width, 0.0f);
    for (int64_t j = 0; j < count; ++j) {
      const float* from = in.k + (first_row + j) * stride + kv_head * dim;
      std::copy_n(from, dim, k.data() + j * width);
    }
    for (int64_t group = 0; group < count; group += kLanes)  // a cache line of the turned rows at a time
      for (int64_t d = 0; d < dim; ++d)
        for (int64_t j = group; j < std::min(count, group + kLanes); ++j) {
          const int64_t from = (first_row + j) * stride + kv_head * dim + d;
          k_turned.data()[d * kKeyBlock + j] = in.k[from];
          v_turned.data()[d * kKeyBlock + j] = in.v[from];
        }
  }

  int64_t width, count = 0, position = 0;
  Scratch<float> k, k_turned, v_turned, dk, dv;
};

// scores -> probabilities, dp -> gradient of the unscaled scores; both [rows, kKeyBlock]. Keys outside [low, high) of
// a row are not seen by it.
[[gnu::always_inline]] inline void gradient_of_scores(int64_t vectors, int64_t low, int64_t high, float scale,
                                                      float lse, float delta, float* scores, float* dp) {
  I32 lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int64_t v = 0; v < vectors; ++v) {
    const I32 key = lane + static_cast<int32_t>(v * kLanes);
    const I32 seen = (key >= static_cast<int32_t>(low)) & (key < static_cast<int32_t>(high));
    const F32 e = simd::exp(simd::load(scores + v * kLanes) * scale - lse);
    const F32 p = seen != 0 ? e : F32{};
    simd::store(scores + v * kLanes, p);
    simd::store(dp + v * kLanes, p * (simd::load(dp + v * kLanes) - delta) * scale);
  }
}

// What one block of keys and the queries of a segment owe each other.
[[gnu::always_inline]] inline void block_gradients(const Inputs& in, const AttentionSegment& s, const Queries& queries,
                                                   const Keys& keys) {
  const int64_t width = queries.width, width_vectors = width / kLanes, window = in.plan->window;
  alignas(64) float scores[kQueryBlock * kKeyBlock];
  alignas(64) float dp[kQueryBlock * kKeyBlock];
  for (int64_t h = 0; h < queries.heads; ++h)
    for (int64_t first = 0; first < queries.rows; first += kQueryBlock) {
      const int64_t rows = std::min(kQueryBlock, queries.rows - first);
      const int64_t last = std::min<int64_t>(first + rows, s.query_count) - 1;
      const int64_t seen = std::min(keys.count, s.position + last + 1 - keys.position);  // by the last query
      if (seen <= 0) continue;
      if (window > 0 && keys.position + keys.count <= s.position + first - window + 1) continue;
      const int64_t vectors = up(seen, kLanes) / kLanes, offset = h * queries.rows + first;
      const float* q = queries.q.data() + offset * width;
      const float* dout = queries.dout.data() + offset * width;
      product(rows, vectors, q, width, 1, keys.k_turned.data(), kKeyBlock, in.shape.head_dim, scores, kKeyBlock, false);
      product(rows, vectors, dout, width, 1, keys.v_turned.data(), kKeyBlock, in.shape.head_dim, dp, kKeyBlock, false);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = s.position + first + i - keys.position;  // the query itself, among the block's keys
        const int64_t high = first + i < s.query_count ? std::min(keys.count, at + 1) : 0;
        gradient_of_scores(vectors, window > 0 ? at - window + 1 : 0, high, in.shape.scale,
                           queries.lse.data()[offset + i], queries.delta.data()[offset + i], scores + i * kKeyBlock,
                           dp + i * kKeyBlock);
      }
      const int64_t key_rows = up(seen, kTileRows);
      product(rows, width_vectors, dp, kKeyBlock, 1, keys.k.data(), width, seen, queries.dq.data() + offset * width,
              width, true);
      product(key_rows, width_vectors, dp, 1, kKeyBlock, q, width, rows, keys.dk.data(), width, true);
      product(key_rows, width_vectors, scores, 1, kKeyBlock, dout, width, rows, keys.dv.data(), width, true);
    }
}

// A segment's share, for query heads [first, last) of one key head: dq is written, dk and dv added to.
void segment_gradients(const Inputs& in, const AttentionSegment& s, int kv_head, int first, int last, float* dq,
                       float* dk, float* dv) {
  const int64_t dim = in.shape.head_dim, key_stride = in.shape.kv_heads * dim;
  const Queries queries(in, s, first, last);
  Keys keys(queries.width);
  const auto range = [&](int64_t first_row, int64_t count, int64_t position) {
    for (int64_t j = 0; j < count; j += kKeyBlock) {
      const int64_t n = std::min(kKeyBlock, count - j);
      if (in.plan->window > 0 && position + j + n <= s.position - in.plan->window + 1) continue;  // too old for all
      keys.take(in, first_row + j, n, position + j, kv_head);
      simd::with_simd([&]() __attribute__((always_inline)) { block_gradients(in, s, queries, keys); });
      for (int64_t r = 0; r < n; ++r) {
        float* to_dk = dk + (first_row + j + r) * key_stride + kv_head * dim;
        float* to_dv = dv + (first_row + j + r) * key_stride + kv_head * dim;
        for (int64_t d = 0; d < dim; ++d) {
          to_dk[d] += keys.dk.data()[r * queries.width + d];
          to_dv[d] += keys.dv.data()[r * queries.width + d];
        }
      }
    }
  };
  int64_t position = 0;
  for (const KeyRange& ancestor : s.ancestors) {
    range(ancestor.first, ancestor.count, position);
    position += ancestor.count;
  }
  assert(position == s.position);
  range(s.key_first, s.query_count, s.position);
  for (int64_t h = 0; h < queries.heads; ++h)
    for (int64_t i = 0; i < s.query_count; ++i)
      std::copy_n(queries.dq.data() + (h * queries.rows + i) * queries.width, dim,
                  dq + ((s.query_first + i) * in.shape.heads + first + h) * dim);
}

// Segments that see common keys must be added up in order, by one task; the others are independent. Returns lists of
// segment indices.
std::vector<std::vector<int32_t>> independent_parts(const AttentionPlan& plan, int64_t key_rows) {
  const auto count = static_cast<int32_t>(plan.segments.size());
  std::vector<int32_t> owner(static_cast<size_t>(key_rows), count);  // the segment whose own key a row is
  for (int32_t i = 0; i < count; ++i) {
    const AttentionSegment& s = plan.segments[static_cast<size_t>(i)];
    std::fill_n(owner.begin() + s.key_first, s.query_count, i);
  }
  std::vector<int32_t> parent(static_cast<size_t>(count) + 1);  // the last one: keys that no segment owns
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](int32_t i) {
    while (parent[static_cast<size_t>(i)] != i)
      i = parent[static_cast<size_t>(i)] = parent[static_cast<size_t>(parent[static_cast<size_t>(i)])];
    return i;
  };
  for (int32_t i = 0; i < count; ++i)
    for (const KeyRange& range : plan.segments[static_cast<size_t>(i)].ancestors)
      for (int64_t row = range.first; row < range.first + range.count;) {
        const int32_t o = owner[static_cast<size_t>(row)];
        parent[static_cast<size_t>(root(i))] = root(o);
        row = o == count
                  ? row + 1
                  : plan.segments[static_cast<size_t>(o)].key_first + plan.segments[static_cast<size_t>(o)].query_count;
      }
  std::vector<std::vector<int32_t>> parts;
  std::vector<int32_t> part_of(parent.size(), -1);
  for (int32_t i = 0; i < count; ++i) {
    int32_t& part = part_of[static_cast<size_t>(root(i))];
    if (part < 0) {
      part = static_cast<int32_t>(parts.size());
      parts.emplace_back();
    }
    parts[static_cast<size_t>(part)].push_back(i);
  }
  return parts;
}

}  // namespace

void attention_backward(GemmPrecision, const float* q, const float* k, const float* v, const float* out,
                        const float* lse, const float* dout, int64_t key_rows, const AttentionPlan& plan,
                        const AttentionShape& shape, float* dq, float* dk, float* dv) {
  assert(shape.heads % shape.kv_heads == 0);
  const Inputs in{q, k, v, out, lse, dout, &plan, shape};
  const int group = shape.heads / shape.kv_heads;
  const int64_t key_elements = key_rows * shape.kv_heads * shape.head_dim;
  const std::vector<std::vector<int32_t>> parts = independent_parts(plan, key_rows);

  // A few long parts are split by query head instead of by key head: each head of a group then adds to a copy of dk
  // and dv of its own. The plan alone decides, so that sums don't depend on the threads.
  const auto tasks = static_cast<int64_t>(parts.size()) * shape.kv_heads;
  const int copies = tasks < 16 ? group : 1;
  const Scratch<float> more(static_cast<size_t>(2 * (copies - 1) * key_elements));
  const auto copy_of = [&](int copy, float* first, int which) {
    return copy == 0 ? first : more.data() + (2 * (copy - 1) + which) * key_elements;
  };
  for (int copy = 0; copy < copies; ++copy)
    for (int which = 0; which < 2; ++which) {
      float* all = copy_of(copy, which == 0 ? dk : dv, which);
      std::fill(all, all + key_elements, 0.0f);
    }
  threads().parallel_for(tasks * copies, [&](int64_t task, int) {
    const int copy = static_cast<int>(task % copies);
    const int kv_head = static_cast<int>(task / copies % shape.kv_heads);
    const int heads = group / copies, first = kv_head * group + copy * heads;
    for (const int32_t i : parts[static_cast<size_t>(task / copies / shape.kv_heads)])
      segment_gradients(in, plan.segments[static_cast<size_t>(i)], kv_head, first, first + heads, dq,
                        copy_of(copy, dk, 0), copy_of(copy, dv, 1));
  });
  for (int copy = 1; copy < copies; ++copy)
    for (int which = 0; which < 2; ++which) {
      float* to = which == 0 ? dk : dv;
      const float* from = copy_of(copy, nullptr, which);
      for (int64_t i = 0; i < key_elements; ++i) to[i] += from[i];
    }
}

}  // namespace thimble
