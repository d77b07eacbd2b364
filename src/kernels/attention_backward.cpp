#include "kernels/attention_backward.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <numeric>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/elementwise.h"
#include "kernels/gemm_operand.h"
#include "kernels/simd.h"
#include "kernels/unpack_bf16.h"

namespace thimble {
namespace {

using gemm::Kernels;
using gemm::TileInput;
using gemm::TileSet;
using simd::F32;
using simd::kLanes;

constexpr int64_t kQueryBlock =
    28;  // queries x keys of a block: scores and their gradients stay in a first-level cache
constexpr int64_t kKeyBlock = 64;
constexpr int64_t kTurnedStride = 32;  // of a block's scores by key: its queries, filled up

int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// c[rows, cols] (+)= a[rows, depth] · panels, which lie panel_stride elements apart. depth: a multiple of the pair.
template <class E>
void product(const TileSet<E>& set, int64_t rows, int64_t cols, const E* a, int64_t stride, int64_t depth,
             const E* panels, int64_t panel_stride, float* c, int64_t ldc, bool accumulate) {
  const int64_t tiles = (rows + set.rows - 1) / set.rows;
  TileInput<E> input{{a, nullptr}, {stride, 0}, {depth, 0}, panels};
  for (int64_t t = 0, row = 0; t < tiles; ++t) {
    const int64_t count = rows / tiles + (t < rows % tiles ? 1 : 0);
    input.a[0] = a + row * stride;
    for (int64_t n = 0; n < cols; n += set.width) {
      input.panel = panels + n / set.width * panel_stride;
      set.tiles[count - 1](input, c + row * ldc + n, ldc, static_cast<int>(std::min<int64_t>(set.width, cols - n)),
                           accumulate);
    }
    row += count;
  }
}

// 64 ones, then zeros: from kOnes + 64 - n on, lane j holds whether j < n. Masks are multiplied, because g++ 12 makes
// scalar code of vector comparisons where the body was not written for the instruction set.
constexpr auto kOnes = [] {
  std::array<float, 2 * kKeyBlock> values{};
  for (size_t i = 0; i < kKeyBlock; ++i) values[i] = 1;
  return values;
}();

// One query's scores -> probabilities, dp -> gradient of the unscaled scores; both [count], whole vectors. Keys outside
// [low, high) are not seen by it.
[[gnu::always_inline]] inline void gradient_of_scores(int64_t count, int64_t low, int64_t high, float scale, float lse,
                                                      float delta, float* scores, float* dp) {
  const float* before_high = kOnes.data() + kKeyBlock - (high < 0 ? 0 : high);
  const float* before_low = kOnes.data() + kKeyBlock - (low < kKeyBlock ? low : kKeyBlock);
  for (int64_t j = 0; j < count; j += kLanes) {
    F32 p = simd::exp(simd::load(scores + j) * scale - lse) * simd::load(before_high + j);
    if (low > 0) p *= 1.0f - simd::load(before_low + j);
    simd::store(scores + j, p);
    simd::store(dp + j, p * (simd::load(dp + j) - delta) * scale);
  }
}

void to_elements(const float* x, int64_t n, uint16_t* out) { round_bf16(x, n, 1, out); }
void to_elements(const float* x, int64_t n, float* out) { std::copy_n(x, n, out); }
void turn(const float* x, int64_t rows, uint16_t* out) { transpose_bf16(x, rows, kKeyBlock, 1, out, kTurnedStride); }
void turn(const float* x, int64_t rows, float* out) {
  for (int64_t j = 0; j < kKeyBlock; ++j)
    for (int64_t i = 0; i < rows; ++i) out[j * kTurnedStride + i] = x[i * kKeyBlock + j];
}

template <class E>
struct Inputs {
  const Kernels<E>& kernels;
  const TileSet<E>& set;  // whose panels are at most half a block of keys wide
  Tensor q, k, v, dout;   // [rows, heads * head_dim] and [key_rows, kv_heads * head_dim], of type E
  const float* lse;       // [rows, heads]
  const float* delta;     // [rows, heads]: sum of probability · its gradient over the row's keys
  const AttentionPlan& plan;
  AttentionShape shape;

  int64_t panels(int64_t cols) const { return (cols + set.width - 1) / set.width; }
  int64_t paired(int64_t depth) const { return up(depth, kernels.pair); }
};

// The share of one segment and the query heads [first_head, first_head + heads) of one key head: all are added to.
template <class E>
class SegmentGradients {
 public:
  SegmentGradients(const Inputs<E>& in, const AttentionSegment& s, int kv_head, int first_head, int heads, float* dq,
                   float* dk, float* dv)
      : in_(in),
        s_(s),
        dim_(in.shape.head_dim),
        kv_head_(kv_head),
        first_head_(first_head),
        heads_(heads),
        dq_(dq),
        dk_(dk),
        dv_(dv),
        blocks_((s.query_count + kQueryBlock - 1) / kQueryBlock),
        query_panel_(kQueryBlock * in.set.width),
        q_panels_(static_cast<size_t>(heads * blocks_ * in.panels(dim_) * query_panel_)),
        dout_panels_(static_cast<size_t>(heads * blocks_ * in.panels(dim_) * query_panel_)),
        turned_panel_(in.paired(dim_) * in.set.width),
        k_turned_(static_cast<size_t>(in.panels(kKeyBlock) * turned_panel_)),
        v_turned_(static_cast<size_t>(in.panels(kKeyBlock) * turned_panel_)),
        k_panel_(kKeyBlock * in.set.width),
        k_panels_(static_cast<size_t>(in.panels(dim_) * k_panel_)),
        scores_(static_cast<size_t>(kQueryBlock * kKeyBlock)),
        dp_(static_cast<size_t>(kQueryBlock * kKeyBlock)),
        ds_(static_cast<size_t>(kQueryBlock * kKeyBlock)),
        p_turned_(static_cast<size_t>(kKeyBlock * kTurnedStride)),
        ds_turned_(static_cast<size_t>(kKeyBlock * kTurnedStride)) {}

  void run() {
    const int width = in_.set.width;
    for (int h = 0; h < heads_; ++h)
      for (int64_t block = 0; block < blocks_; ++block) {
        const int64_t first = s_.query_first + block_begin(block), depth = block_begin(block + 1) - block_begin(block);
        const int64_t place = query_panels(h, block), column = (first_head_ + h) * dim_;
        in_.kernels.pack_cols(in_.q, column, dim_, first, depth, width, q_panels_.data() + place, query_panel_);
        in_.kernels.pack_cols(in_.dout, column, dim_, first, depth, width, dout_panels_.data() + place, query_panel_);
      }
    int64_t position = 0;
    for (const KeyRange& ancestor : s_.ancestors) {
      keys(ancestor.first, ancestor.count, position);
      position += ancestor.count;
    }
    assert(position == s_.position);
    keys(s_.key_first, s_.query_count, s_.position);
  }

 private:
  // Queries are dealt out evenly to the blocks, pairs together.
  int64_t block_begin(int64_t block) const {
    const int64_t pairs = (s_.query_count + 1) / 2;
    return std::min<int64_t>(s_.query_count, (pairs / blocks_ * block + std::min(block, pairs % blocks_)) * 2);
  }
  int64_t query_panels(int h, int64_t block) const { return (h * blocks_ + block) * in_.panels(dim_) * query_panel_; }

  void keys(int64_t first_row, int64_t count, int64_t position) {
    const int width = in_.set.width;
    for (int64_t j = 0; j < count; j += kKeyBlock) {
      const int64_t n = std::min(kKeyBlock, count - j), row = first_row + j;
      if (in_.plan.window > 0 && position + j + n <= s_.position - in_.plan.window + 1) continue;  // too old for all
      for (int64_t p = 0; p * width < n; ++p) {
        const int cols = static_cast<int>(std::min<int64_t>(width, n - p * width));
        in_.kernels.pack_rows(in_.k, row + p * width, cols, kv_head_ * dim_, dim_, width,
                              k_turned_.data() + p * turned_panel_);
        in_.kernels.pack_rows(in_.v, row + p * width, cols, kv_head_ * dim_, dim_, width,
                              v_turned_.data() + p * turned_panel_);
      }
      in_.kernels.pack_cols(in_.k, kv_head_ * dim_, dim_, row, n, width, k_panels_.data(), k_panel_);
      for (int h = 0; h < heads_; ++h)
        for (int64_t block = 0; block < blocks_; ++block) block_gradients(h, block, row, n, position + j);
    }
  }

  // What one block of keys, at rows [row, row + count), and one of queries owe each other.
  void block_gradients(int h, int64_t block, int64_t row, int64_t count, int64_t position) {
    const int64_t begin = block_begin(block), rows = block_begin(block + 1) - begin, window = in_.plan.window;
    const int64_t seen = std::min(count, s_.position + begin + rows - position);  // keys that the last query sees
    if (seen <= 0 || (window > 0 && position + count <= s_.position + begin - window + 1)) return;
    const int64_t query = s_.query_first + begin, head = first_head_ + h;
    const int64_t q_stride = in_.shape.heads * dim_, k_stride = in_.shape.kv_heads * dim_;
    const E* q = reinterpret_cast<const E*>(in_.q.row(query)) + head * dim_;
    const E* dout = reinterpret_cast<const E*>(in_.dout.row(query)) + head * dim_;
    const int64_t columns = up(seen, kLanes), key_depth = in_.paired(seen), query_depth = in_.paired(rows);

    product(in_.set, rows, columns, q, in_.q.cols(), dim_, k_turned_.data(), turned_panel_, scores_.data(), kKeyBlock,
            false);
    product(in_.set, rows, columns, dout, in_.dout.cols(), dim_, v_turned_.data(), turned_panel_, dp_.data(), kKeyBlock,
            false);
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = s_.position + begin + i - position;  // the query itself, among the block's keys
        gradient_of_scores(columns, window > 0 ? at - window + 1 : 0, std::min(seen, at + 1), in_.shape.scale,
                           in_.lse[(query + i) * in_.shape.heads + head],
                           in_.delta[(query + i) * in_.shape.heads + head], scores_.data() + i * kKeyBlock,
                           dp_.data() + i * kKeyBlock);
      }
    });
    for (int64_t i = rows; i < query_depth; ++i) {  // what fills up the last pair
      std::fill_n(scores_.data() + i * kKeyBlock, kKeyBlock, 0.0f);
      std::fill_n(dp_.data() + i * kKeyBlock, kKeyBlock, 0.0f);
    }
    to_elements(dp_.data(), rows * kKeyBlock, ds_.data());
    turn(scores_.data(), query_depth, p_turned_.data());
    turn(dp_.data(), query_depth, ds_turned_.data());
    const int64_t place = query_panels(h, block);
    product(in_.set, rows, dim_, ds_.data(), kKeyBlock, key_depth, k_panels_.data(), k_panel_,
            dq_ + query * q_stride + head * dim_, q_stride, true);
    product(in_.set, seen, dim_, ds_turned_.data(), kTurnedStride, query_depth, q_panels_.data() + place, query_panel_,
            dk_ + row * k_stride + kv_head_ * dim_, k_stride, true);
    product(in_.set, seen, dim_, p_turned_.data(), kTurnedStride, query_depth, dout_panels_.data() + place,
            query_panel_, dv_ + row * k_stride + kv_head_ * dim_, k_stride, true);
  }

  const Inputs<E>& in_;
  const AttentionSegment& s_;
  const int64_t dim_;
  const int kv_head_, first_head_, heads_;
  float* const dq_;
  float* const dk_;
  float* const dv_;
  const int64_t blocks_;                     // of queries
  const int64_t query_panel_;                // elements of a panel of a block's queries
  const Scratch<E> q_panels_, dout_panels_;  // [head][block]: lanes over the head's elements, pairs along queries
  const int64_t turned_panel_;
  const Scratch<E> k_turned_, v_turned_;  // of the current keys: lanes over keys, pairs along the head's elements
  const int64_t k_panel_;
  const Scratch<E> k_panels_;              // lanes over the head's elements, pairs along keys
  const Scratch<float> scores_, dp_;       // [query, kKeyBlock]
  const Scratch<E> ds_;                    // the same
  const Scratch<E> p_turned_, ds_turned_;  // [key, kTurnedStride]
};

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

// dq, dk and dv hold zeros.
template <class E>
void gradients(const Inputs<E>& in, int64_t key_rows, float* dq, float* dk, float* dv) {
  const int group = in.shape.heads / in.shape.kv_heads;
  const int64_t key_elements = key_rows * in.shape.kv_heads * in.shape.head_dim;
  const std::vector<std::vector<int32_t>> parts = independent_parts(in.plan, key_rows);

  // A few long parts are split by query head instead of by key head: each head of a group then adds to a copy of dk
  // and dv of its own. The plan alone decides, so that sums don't depend on the threads.
  const auto tasks = static_cast<int64_t>(parts.size()) * in.shape.kv_heads;
  const int copies = tasks < 16 ? group : 1, heads = group / copies;
  const Scratch<float> more(static_cast<size_t>(2 * (copies - 1) * key_elements));
  std::fill_n(more.data(), 2 * (copies - 1) * key_elements, 0.0f);
  threads().parallel_for(tasks * copies, [&](int64_t task, int) {
    const int copy = static_cast<int>(task % copies), kv_head = static_cast<int>(task / copies % in.shape.kv_heads);
    float* copied = more.data() + 2 * (copy - 1) * key_elements;
    for (const int32_t i : parts[static_cast<size_t>(task / copies / in.shape.kv_heads)])
      SegmentGradients<E>(in, in.plan.segments[static_cast<size_t>(i)], kv_head, kv_head * group + copy * heads, heads,
                          dq, copy == 0 ? dk : copied, copy == 0 ? dv : copied + key_elements)
          .run();
  });
  for (int copy = 0; copy < copies - 1; ++copy) {
    add_values(dk, more.data() + 2 * copy * key_elements, key_elements, dk);
    add_values(dv, more.data() + (2 * copy + 1) * key_elements, key_elements, dv);
  }
}

}  // namespace

void attention_backward(GemmPrecision precision, const float* q, const float* k, const float* v, const float* out,
                        const float* lse, const float* dout, int64_t key_rows, const AttentionPlan& plan,
                        const AttentionShape& shape, float* dq, float* dk, float* dv) {
  assert(shape.heads % shape.kv_heads == 0);
  if (shape.head_dim % 2 != 0) precision = GemmPrecision::kF32;  // bf16 products take pairs
  const int64_t rows = plan.rows(), dim = shape.head_dim;
  const int64_t q_cols = shape.heads * dim, k_cols = shape.kv_heads * dim;
  const Scratch<float> delta(static_cast<size_t>(rows * shape.heads));
  threads().parallel_for((rows + 31) / 32, [&](int64_t task, int) {
    const int64_t first = task * 32, last = std::min(rows, first + 32);
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t i = first * shape.heads; i < last * shape.heads; ++i) {
        F32 sum{};
        int64_t d = 0;
        for (; d + kLanes <= dim; d += kLanes) sum += simd::load(dout + i * dim + d) * simd::load(out + i * dim + d);
        if (d < dim) sum += simd::load(dout + i * dim + d, dim - d) * simd::load(out + i * dim + d, dim - d);
        delta.data()[i] = simd::sum(sum);
      }
    });
    std::fill(dq + first * q_cols, dq + last * q_cols, 0.0f);
  });
  std::fill_n(dk, key_rows * k_cols, 0.0f);
  std::fill_n(dv, key_rows * k_cols, 0.0f);

  gemm::with_kernels(precision, [&]<class E>(const Kernels<E>& kernels) {
    const gemm::Operand<E> q_e({q, rows, q_cols}), dout_e({dout, rows, q_cols});
    const gemm::Operand<E> k_e({k, key_rows, k_cols}), v_e({v, key_rows, k_cols});
    const TileSet<E>& set = kernels.sets[kernels.sets[1].width > 0 && kernels.sets[1].width <= kKeyBlock / 2 ? 1 : 0];
    gradients<E>({kernels, set, q_e.tensor(rows), k_e.tensor(key_rows), v_e.tensor(key_rows), dout_e.tensor(rows), lse,
                  delta.data(), plan, shape},
                 key_rows, dq, dk, dv);
  });
}

}  // namespace thimble
