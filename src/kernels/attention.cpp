#include "kernels/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/attention_block.h"
#include "kernels/attention_few_rows.h"
#include "kernels/attention_jobs.h"
#include "kernels/rotate_heads.h"
#include "kernels/scratch.h"
#include "kernels/simd.h"

// Positions are cut into blocks of 64 keys and spans of 4 blocks, counted from position 0. Within a span, softmax runs
// from block to block; spans are summed up apart and then merged in order, which lets threads share the spans of one
// long sequence. The cuts are the same for every row and every plan: that makes results independent of both.
namespace thimble {
namespace {
using attention::BlockSlots;
using attention::first_seen;
using attention::Job;
using attention::kFewRows;
using attention::kKeys;
using attention::kMicroRows;
using attention::kSpanKeys;
using attention::Queries;
using attention::Sums;
using simd::F32;
using simd::kLanes;

constexpr int kVectors = kKeys / kLanes;
constexpr int kMostRows = std::max(kMicroRows, kFewRows);

// c[kRows][16 * kWidth] = scale[r] * c + a[kRows][depth] · b[depth][...]: every element one chain in order of depth.
template <int kRows, int kWidth>
[[gnu::always_inline]] inline void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                            int depth, const float* scale, float* c, int64_t c_stride) {
  constexpr int64_t kStep = sizeof(simd::Carried) / sizeof(float);
  constexpr int kParts = kWidth * static_cast<int>(kLanes / kStep);
  simd::Carried sum[kRows][kParts];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kParts; ++v)
      sum[r][v] = scale == nullptr ? simd::Carried{} : simd::load_carried(c + r * c_stride + v * kStep) * scale[r];
  for (int k = 0; k < depth; ++k) {
    simd::Carried column[kParts];
#pragma GCC unroll 4
    for (int v = 0; v < kParts; ++v) column[v] = simd::load_carried(b + k * b_stride + v * kStep);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) sum[r][v] += a[r * a_stride + k] * column[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kParts; ++v) simd::store(c + r * c_stride + v * kStep, sum[r][v]);
}

// The same for any number of rows and vectors, in pieces that fit the machine's registers.
template <int kRows, int kWidth>
[[gnu::always_inline]] inline void multiply_all(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                                int depth, const float* scale, float* c, int64_t c_stride, int rows,
                                                int width) {
  for (int v = 0; v < width;) {
    const bool full = v + kWidth <= width;
    for (int r = 0; r < rows;) {
      const int left = rows - r;
      const float* const a_rows = a + r * a_stride;
      const float* const columns = b + v * kLanes;
      const float* const scales = scale == nullptr ? nullptr : scale + r;
      float* const to = c + r * c_stride + v * kLanes;
      if (!full) {
        multiply<1, 1>(a_rows, a_stride, columns, b_stride, depth, scales, to, c_stride);
        r += 1;
      } else if (left >= kRows) {
        multiply<kRows, kWidth>(a_rows, a_stride, columns, b_stride, depth, scales, to, c_stride);
        r += kRows;
      } else if (left == 3 || left == 5) {
        multiply<3, kWidth>(a_rows, a_stride, columns, b_stride, depth, scales, to, c_stride);
        r += 3;
      } else if (left >= 2) {
        multiply<2, kWidth>(a_rows, a_stride, columns, b_stride, depth, scales, to, c_stride);
        r += 2;
      } else {
        multiply<1, kWidth>(a_rows, a_stride, columns, b_stride, depth, scales, to, c_stride);
        r += 1;
      }
    }
    v += full ? kWidth : 1;
  }
}

// Adds what a later span has summed up.
[[gnu::always_inline]] inline void merge(const Sums& into, const Sums& from, int64_t rows, int stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const float top = std::max(into.top[r], from.top[r]);
    const float old_scale = simd::exp(F32{} + (into.top[r] - top))[0];
    const float new_scale = simd::exp(F32{} + (from.top[r] - top))[0];
    into.top[r] = top;
    float* total = into.total + r * kLanes;
    simd::store(total, simd::load(total) * old_scale + simd::load(from.total + r * kLanes) * new_scale);
    for (int d = 0; d < stride; d += static_cast<int>(kLanes)) {
      float* sum = into.sum + r * stride + d;
      simd::store(sum, simd::load(sum) * old_scale + simd::load(from.sum + r * stride + d) * new_scale);
    }
  }
}

// Where a segment's positions lie: its ancestors' ranges, then its own keys.
class Positions {
 public:
  explicit Positions(const AttentionSegment& segment) : segment_(segment) {}

  // Slots of positions [first, last), first not before the previous call's unless rewound.
  void slots(int32_t first, int32_t last, BlockSlots& out) {
    out.clear();
    if (first < begin_) range_ = 0, begin_ = 0;
    for (int32_t p = first; p < last;) {
      const KeyRange range = this->range();
      if (p >= begin_ + range.count) {
        begin_ += range.count;
        ++range_;
        continue;
      }
      const int32_t end = std::min(last, begin_ + range.count);
      out.add(range.first + (p - begin_), end - p);
      p = end;
    }
  }

 private:
  KeyRange range() const {
    if (range_ < segment_.ancestors.size()) return segment_.ancestors[range_];
    return {segment_.key_first, std::numeric_limits<int32_t>::max() / 2};
  }

  const AttentionSegment& segment_;
  size_t range_ = 0;
  int32_t begin_ = 0;  // position of the range's first key
};

struct Call {
  const float* q;
  const KeyValueView& kv;
  const AttentionPlan& plan;
  const AttentionShape& shape;
  float* out;
  float* lse;
  int group;   // query heads a key head
  int stride;  // head_dim, rounded up to whole vectors
};

// Some of a tile's rows against a block, and which of its keys they see.
struct BlockRows {
  int count = 0;
  int depth = 0;  // what lies behind has weight zero in all these rows
  int seen_from[kMostRows];
  int seen_to[kMostRows];

  BlockRows(const Call& call, std::span<const int32_t> position, int32_t begin, int first, int rows) : count(rows) {
    for (int r = 0; r < rows; ++r) {
      const int32_t at = position[static_cast<size_t>((first + r) / call.group)];
      seen_from[r] = std::clamp(first_seen(call.plan, at) - begin, 0, kKeys);
      seen_to[r] = std::clamp(at + 1 - begin, 0, kKeys);
      depth = std::max(depth, seen_to[r]);
    }
  }
};

// Scales of a block's keys and values; null where the type has none.
struct BlockScales {
  const float* keys = nullptr;
  const float* values = nullptr;
  float memory[2 * kKeys];

  BlockScales(const Call& call, const BlockSlots& slots, int kv_head) {
    if (attention::unpack_scales(call.kv, slots, kv_head, memory, memory + kKeys)) keys = memory, values = keys + kKeys;
  }
};

// A block's keys, unpacked, against all rows of a tile; q [rows][head_dim], scaled; position [queries].
template <int kRows, int kWidth>
void sum_block(const Call& call, const Job& job, const BlockSlots& slots, int32_t begin, const float* q,
               std::span<const int32_t> position, const Sums& sums) {
  const int head_dim = call.shape.head_dim, stride = call.stride;
  const Scratch<float> keys(static_cast<size_t>(head_dim) * kKeys), values(static_cast<size_t>(stride) * kKeys);
  attention::unpack_block(call.kv, slots, job.kv_head, head_dim, stride, keys.data(), values.data());
  const BlockScales scales(call, slots, job.kv_head);
  const int rows = static_cast<int>(position.size()) * call.group;
  for (int first = 0; first < rows; first += kMicroRows) {
    const BlockRows some(call, position, begin, first, std::min(kMicroRows, rows - first));
    if (some.depth == 0) continue;
    float scores[kMicroRows * kKeys], scale[kMicroRows];
    simd::with_simd([&]() __attribute__((always_inline)) {
      multiply_all<kRows, kWidth>(q + first * head_dim, head_dim, keys.data(), kKeys, head_dim, nullptr, scores, kKeys,
                                  some.count, kVectors);
    });
    attention::soften(scores, some.count, some.seen_from, some.seen_to, scales.keys, scales.values, sums.top + first,
                      sums.total + first * kLanes, scale);
    simd::with_simd([&]() __attribute__((always_inline)) {
      multiply_all<kRows, kWidth>(scores, kKeys, values.data(), stride, some.depth, scale, sums.sum + first * stride,
                                  stride, some.count, stride / static_cast<int>(kLanes));
    });
  }
}

// The same for few rows, where the block is in a cache and need not be unpacked.
void sum_few(const Call& call, const Job& job, const BlockSlots& slots, const BlockSlots& next, int32_t begin,
             const float* q, std::span<const int32_t> position, const Sums& sums) {
  const auto& cache = std::get<KeyValueCache>(call.kv);
  const BlockRows all(call, position, begin, 0, static_cast<int>(position.size()) * call.group);
  if (all.depth == 0) return;
  const BlockScales scales(call, slots, job.kv_head);
  attention::NextBlock ahead;
  if (next.runs > 0) {  // the last run's, as the others' block is being read now
    const int64_t at = cache.layout.head_at(next.run[next.runs - 1].slot, job.kv_head);
    ahead = {cache.keys + at, cache.values + at};
  }
  alignas(64) float memory[kLanes + kFewRows * kKeys];
  float* const scores = memory + kLanes;
  float scale[kFewRows];
  attention::few_scores(cache, slots, ahead, job.kv_head, q, all.count, scores);
  attention::soften(scores, all.count, all.seen_from, all.seen_to, scales.keys, scales.values, sums.top, sums.total,
                    scale);
  attention::few_values(cache, slots, ahead, job.kv_head, scores, all.depth, scale, all.count, sums.sum);
}

// A span's keys against a tile of queries.
void sum_span(const Call& call, const Job& job, int32_t span, const float* q, std::span<const int32_t> position,
              const Sums& sums) {
  const auto [lowest, highest] = std::minmax_element(position.begin(), position.end());
  const int32_t key_first = std::max(span * kSpanKeys, first_seen(call.plan, *lowest) / kKeys * kKeys);
  const int32_t key_last = std::min((span + 1) * kSpanKeys, *highest + 1);
  const int32_t job_last = std::min(job.span_last * kSpanKeys, *highest + 1);  // what is asked for ahead
  const bool few = std::ssize(position) * call.group <= kFewRows && attention::has_few_rows() &&
                   std::holds_alternative<KeyValueCache>(call.kv);
  Positions positions(*job.queries.front().segment);
  BlockSlots slots[2];  // this block's and the next one's
  const auto look_up = [&](int32_t begin, BlockSlots& to) {
    positions.slots(begin, std::max(begin, std::min(begin + kKeys, job_last)), to);
    if (!few) attention::prefetch_block(call.kv, to, job.kv_head, call.shape.head_dim);
  };
#if defined(__aarch64__)
  const auto sum = sum_block<kMicroRows, 1>;
#else
  const auto sum = cpu_level() >= CpuLevel::kAvx512 ? sum_block<kMicroRows, 4> : sum_block<3, 1>;
#endif
  look_up(key_first, slots[0]);
  for (int32_t begin = key_first, turn = 0; begin < key_last; begin += kKeys, turn ^= 1) {
    look_up(begin + kKeys, slots[turn ^ 1]);
    if (few)
      sum_few(call, job, slots[turn], slots[turn ^ 1], begin, q, position, sums);
    else
      sum(call, job, slots[turn], begin, q, position, sums);
  }
}

void load_queries(const Call& call, const Job& job, float* q, int32_t* position) {
  const int head_dim = call.shape.head_dim;
  const auto* cache = std::get_if<KeyValueCache>(&call.kv);
  const bool rotate = cache != nullptr && cache->layout.rotates_keys();
  for (const Queries& queries : job.queries) {
    for (int32_t i = 0; i < queries.count; ++i) {
      const float* from =
          call.q + ((queries.row() + i) * call.shape.heads + int64_t{job.kv_head} * call.group) * head_dim;
      for (int d = 0; d < call.group * head_dim; ++d) q[d] = from[d] * call.shape.scale;
      if (rotate) rotate_heads(q, call.group, head_dim);
      q += call.group * head_dim;
      *position++ = queries.position() + i;
    }
  }
}

void store_results(const Call& call, const Job& job, const Sums& sums) {
  const int head_dim = call.shape.head_dim;
  const Queries& queries = job.queries.front();
  for (int64_t r = 0; r < int64_t{queries.count} * call.group; ++r) {
    const int64_t row = queries.row() + r / call.group;
    const int64_t head = row * call.shape.heads + int64_t{job.kv_head} * call.group + r % call.group;
    const float total = simd::sum(simd::load(sums.total + r * kLanes));
    for (int d = 0; d < head_dim; ++d) call.out[head * head_dim + d] = sums.sum[r * call.stride + d] / total;
    if (call.lse != nullptr) call.lse[head] = sums.top[r] + std::log(total);
  }
}

void run_job(const Call& call, const Job& job) {
  const int32_t count = job.count();
  const int64_t rows = int64_t{count} * call.group;
  const Scratch<float> q(static_cast<size_t>(rows * call.shape.head_dim));
  const Scratch<int32_t> position_memory(static_cast<size_t>(count));
  const std::span<const int32_t> position(position_memory.data(), static_cast<size_t>(count));
  load_queries(call, job, q.data(), position_memory.data());
  if (job.to.sum != nullptr) {
    Sums to = job.to;
    for (int32_t span = job.span_first; span < job.span_last; ++span, to = to.after(rows, call.stride)) {
      to.clear(rows, call.stride);
      sum_span(call, job, span, q.data(), position, to);
    }
    return;
  }
  const Scratch<float> memory(2 * Sums::floats(rows, call.stride));
  const Sums all = Sums::at(memory.data(), rows, call.stride);
  const Sums own = all.after(rows, call.stride);
  const auto add = [&](const Sums& sums) {
    simd::with_simd([&]() __attribute__((always_inline)) { merge(all, sums, rows, call.stride); });
  };
  all.clear(rows, call.stride);
  for (const Sums& sums : job.early) add(sums);
  for (int32_t span = job.span_first; span < job.span_last; ++span) {
    own.clear(rows, call.stride);
    sum_span(call, job, span, q.data(), position, own);
    add(own);
  }
  store_results(call, job, all);
}

// Longest first, so that threads finish together.
void run_jobs(const Call& call, std::vector<Job>& jobs) {
  int64_t cost = 0;
  for (Job& job : jobs) cost += job.cost = attention::job_cost(call.plan, call.shape, job);
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.cost > b.cost; });
  if (cost < attention::kWorthThreads)
    for (const Job& job : jobs) run_job(call, job);
  else
    threads().parallel_for(static_cast<int64_t>(jobs.size()),
                           [&](int64_t i, int) { run_job(call, jobs[static_cast<size_t>(i)]); });
}

}  // namespace

void attention_forward(const float* q, const KeyValueView& kv, const AttentionPlan& plan, const AttentionShape& shape,
                       float* out, float* lse) {
  if (plan.segments.empty()) return;
  assert(shape.head_dim > 0 && shape.head_dim <= attention::kMaxHead && shape.heads % shape.kv_heads == 0);
  if ([[maybe_unused]] const auto* cache = std::get_if<KeyValueCache>(&kv))
    assert(cache->layout.kv_heads == shape.kv_heads && cache->layout.head_dim == shape.head_dim);
  const int stride = (shape.head_dim + 15) / 16 * 16;
  const Call call{q, kv, plan, shape, out, lse, shape.heads / shape.kv_heads, stride};
  std::vector<Job> jobs = attention::make_jobs(plan, shape);
  attention::EarlyJobs before(plan, shape, stride, jobs);
  if (!before.jobs.empty()) run_jobs(call, before.jobs);
  run_jobs(call, jobs);
}

}  // namespace thimble
