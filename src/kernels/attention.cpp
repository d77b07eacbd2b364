#include "kernels/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/attention_block.h"
#include "kernels/scratch.h"
#include "kernels/simd.h"

// Positions are cut into blocks of 64 keys and spans of 4 blocks, counted from position 0. Within a span, softmax runs
// from block to block; spans are summed up apart and then merged in order, which lets threads share the spans of one
// long sequence. The cuts are the same for every row and every plan: that makes results independent of both.
namespace thimble {
namespace {
using attention::kKeys;
using attention::kSpan;
using simd::F32;
using simd::kLanes;

constexpr int kVectors = kKeys / kLanes;
constexpr int kMicroRows = 6;       // rows a micro-kernel holds in registers
constexpr float kNothing = -1e30f;  // the maximum of no scores: finite, so that differences stay numbers

// Rows of a query tile: query i of the segment and head h of the group stand in row i * group + h.
struct Job {
  const AttentionSegment* segment = nullptr;
  int32_t query = 0;  // first, within the segment
  int32_t count = 0;
  int kv_head = 0;
  int32_t span_first = 0;
  int32_t span_last = 0;  // one past
  int64_t partial = -1;   // where the spans' sums go, in rows; -1: the job merges its spans itself
  int64_t cost = 0;
};

// What softmax has summed up: out = sum / total where total = the sum of the lanes of `total`.
struct Sums {
  float* sum = nullptr;    // [rows][stride]
  float* total = nullptr;  // [rows][16]
  float* top = nullptr;    // [rows], the largest score

  static size_t floats(int64_t rows, int stride) { return static_cast<size_t>(rows) * (stride + kLanes + 1); }
  static Sums at(float* memory, int64_t rows, int stride) {
    return {memory, memory + rows * stride, memory + rows * (stride + kLanes)};
  }
  void clear(int64_t rows, int stride) const {
    std::fill(sum, sum + rows * stride, 0.0f);
    std::fill(total, total + rows * kLanes, 0.0f);
    std::fill(top, top + rows, kNothing);
  }
};

// c[kRows][16 * kWidth] = scale[r] * c + a[kRows][depth] · b[depth][...]: every element one chain in order of depth.
template <int kRows, int kWidth>
[[gnu::always_inline]] inline void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                            int depth, const float* scale, float* c, int64_t c_stride) {
  F32 sum[kRows][kWidth];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kWidth; ++v)
      sum[r][v] = scale == nullptr ? F32{} : simd::load(c + r * c_stride + v * kLanes) * scale[r];
  for (int k = 0; k < depth; ++k) {
    F32 column[kWidth];
#pragma GCC unroll 4
    for (int v = 0; v < kWidth; ++v) column[v] = simd::load(b + k * b_stride + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kWidth; ++v) sum[r][v] += a[r * a_stride + k] * column[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kWidth; ++v) simd::store(c + r * c_stride + v * kLanes, sum[r][v]);
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
  void slots(int32_t first, int32_t last, int32_t* out) {
    if (first < begin_) range_ = 0, begin_ = 0;
    for (int32_t p = first; p < last;) {
      const KeyRange range = this->range();
      if (p >= begin_ + range.count) {
        begin_ += range.count;
        ++range_;
        continue;
      }
      const int32_t end = std::min(last, begin_ + range.count);
      for (; p < end; ++p) *out++ = range.first + (p - begin_);
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

// First position that a query at `position` sees.
int32_t first_seen(const AttentionPlan& plan, int32_t position) {
  return plan.window > 0 ? std::max(0, position - plan.window + 1) : 0;
}

// A span's keys against a tile of queries; q [rows][head_dim], scaled.
template <int kRows, int kWidth>
void sum_span(const Call& call, const Job& job, int32_t span, const float* q, const Sums& sums) {
  const int head_dim = call.shape.head_dim, stride = call.stride, group = call.group;
  const int32_t position = job.segment->position + job.query;  // of the tile's first query
  const int32_t seen_first = first_seen(call.plan, position);
  const int32_t seen_last = position + job.count;
  const Scratch<float> keys(static_cast<size_t>(head_dim) * kKeys), values(static_cast<size_t>(stride) * kKeys);
  Positions positions(*job.segment);
  for (int32_t block = span * kSpan; block < (span + 1) * kSpan; ++block) {
    const int32_t begin = block * kKeys, end = std::min(begin + kKeys, seen_last);
    if (begin + kKeys <= seen_first || begin >= seen_last) continue;
    int32_t slots[kKeys];
    positions.slots(begin, end, slots);
    attention::unpack_block(call.kv, slots, end - begin, int64_t{job.kv_head} * head_dim, head_dim, stride, keys.data(),
                            values.data());
    const int rows = job.count * group;
    for (int first = 0; first < rows; first += kMicroRows) {
      const int count = std::min(kMicroRows, rows - first);
      const int32_t last_position = position + (first + count - 1) / group;
      if (begin > last_position) continue;  // none of these rows sees the block
      float scores[kMicroRows * kKeys], scale[kMicroRows];
      int seen_from[kMicroRows], seen_to[kMicroRows];
      for (int r = 0; r < count; ++r) {
        const int32_t at = position + (first + r) / group;
        seen_from[r] = std::clamp(first_seen(call.plan, at) - begin, 0, kKeys);
        seen_to[r] = std::clamp(at + 1 - begin, 0, kKeys);
      }
      simd::with_simd([&]() __attribute__((always_inline)) {
        multiply_all<kRows, kWidth>(q + first * head_dim, head_dim, keys.data(), kKeys, head_dim, nullptr, scores,
                                    kKeys, count, kVectors);
      });
      attention::soften(scores, count, seen_from, seen_to, sums.top + first, sums.total + first * kLanes, scale);
      const int depth = std::min(end, last_position + 1) - begin;  // the rest has weight zero
      simd::with_simd([&]() __attribute__((always_inline)) {
        multiply_all<kRows, kWidth>(scores, kKeys, values.data(), stride, depth, scale, sums.sum + first * stride,
                                    stride, count, stride / static_cast<int>(kLanes));
      });
    }
  }
}

void load_queries(const Call& call, const Job& job, float* q) {
  const int head_dim = call.shape.head_dim;
  for (int32_t i = 0; i < job.count; ++i) {
    const int64_t row = job.segment->query_first + job.query + i;
    const float* from = call.q + (row * call.shape.heads + int64_t{job.kv_head} * call.group) * head_dim;
    for (int d = 0; d < call.group * head_dim; ++d) *q++ = from[d] * call.shape.scale;
  }
}

void store_results(const Call& call, const Job& job, const Sums& sums) {
  const int head_dim = call.shape.head_dim;
  for (int32_t i = 0; i < job.count; ++i) {
    for (int h = 0; h < call.group; ++h) {
      const int64_t row = job.segment->query_first + job.query + i, r = int64_t{i} * call.group + h;
      const int64_t head = row * call.shape.heads + int64_t{job.kv_head} * call.group + h;
      const float total = simd::sum(simd::load(sums.total + r * kLanes));
      for (int d = 0; d < head_dim; ++d) call.out[head * head_dim + d] = sums.sum[r * call.stride + d] / total;
      if (call.lse != nullptr) call.lse[head] = sums.top[r] + std::log(total);
    }
  }
}

void run_job(const Call& call, const Job& job, float* partials) {
  const int64_t rows = int64_t{job.count} * call.group;
  const bool wide = cpu_level() >= CpuLevel::kAvx512;
  const auto sum = wide ? sum_span<kMicroRows, 4> : sum_span<3, 1>;
  const Scratch<float> q(static_cast<size_t>(rows * call.shape.head_dim));
  load_queries(call, job, q.data());
  if (job.partial >= 0) {
    const Sums sums = Sums::at(partials + Sums::floats(job.partial, call.stride), rows, call.stride);
    sums.clear(rows, call.stride);
    return sum(call, job, job.span_first, q.data(), sums);
  }
  const Scratch<float> memory(2 * Sums::floats(rows, call.stride));
  const Sums all = Sums::at(memory.data(), rows, call.stride);
  const Sums span_sums = Sums::at(memory.data() + Sums::floats(rows, call.stride), rows, call.stride);
  all.clear(rows, call.stride);
  for (int32_t span = job.span_first; span < job.span_last; ++span) {
    span_sums.clear(rows, call.stride);
    sum(call, job, span, q.data(), span_sums);
    simd::with_simd([&]() __attribute__((always_inline)) { merge(all, span_sums, rows, call.stride); });
  }
  store_results(call, job, all);
}

// Tiles of about 64 rows, a multiple of what the micro-kernel takes: unpacking a block is then small against using it.
std::vector<Job> make_jobs(const Call& call) {
  std::vector<Job> jobs;
  int32_t tile = (63 + call.group) / call.group;
  while (tile * call.group % kMicroRows != 0) ++tile;
  for (const AttentionSegment& segment : call.plan.segments) {
    for (int32_t query = 0; query < segment.query_count; query += tile) {
      Job job;
      job.segment = &segment;
      job.query = query;
      job.count = std::min(tile, segment.query_count - query);
      const int32_t position = segment.position + query;
      const int32_t first = first_seen(call.plan, position), last = position + job.count;
      job.span_first = first / (kSpan * kKeys);
      job.span_last = (last - 1) / (kSpan * kKeys) + 1;
      job.cost = int64_t{last - first} * (job.count * call.group + 8);
      for (job.kv_head = 0; job.kv_head < call.shape.kv_heads; ++job.kv_head) jobs.push_back(job);
    }
  }
  return jobs;
}

}  // namespace

void attention_forward(const float* q, const KeyValueView& kv, const AttentionPlan& plan, const AttentionShape& shape,
                       float* out, float* lse) {
  if (plan.segments.empty()) return;
  assert(shape.head_dim > 0 && shape.head_dim <= attention::kMaxHead && shape.heads % shape.kv_heads == 0);
  assert(kv.type == DType::kF32 || kv.type == DType::kF16);
  const int stride = (shape.head_dim + 15) / 16 * 16;
  const Call call{q, kv, plan, shape, out, lse, shape.heads / shape.kv_heads, stride};
  std::vector<Job> jobs = make_jobs(call);

  // Few long jobs: threads share each one's spans, and what they summed up is merged afterwards.
  const auto pool = static_cast<size_t>(threads().size());
  const std::vector<Job> whole = jobs;
  int64_t partial_rows = 0;
  const bool split = pool > 1 && jobs.size() < 4 * pool &&
                     std::any_of(jobs.begin(), jobs.end(), [](const Job& j) { return j.span_last - j.span_first > 1; });
  if (split) {
    jobs.clear();
    for (const Job& job : whole) {
      for (int32_t span = job.span_first; span < job.span_last; ++span) {
        Job part = job;
        part.span_first = span;
        part.span_last = span + 1;
        part.partial = partial_rows;
        partial_rows += int64_t{job.count} * call.group;
        jobs.push_back(part);
      }
    }
  }
  const Scratch<float> partials(Sums::floats(partial_rows, stride));
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.cost > b.cost; });
  int64_t cost = 0;
  for (const Job& job : jobs) cost += job.cost;
  const auto run = [&](int64_t i, int) { run_job(call, jobs[static_cast<size_t>(i)], partials.data()); };
  // A short past is summed up sooner than other threads could be woken.
  if (cost * shape.head_dim < 100'000)
    for (size_t i = 0; i < jobs.size(); ++i) run(static_cast<int64_t>(i), 0);
  else
    threads().parallel_for(static_cast<int64_t>(jobs.size()), run);
  if (!split) return;

  int64_t at = 0;
  for (const Job& job : whole) {
    const int64_t rows = int64_t{job.count} * call.group;
    const Scratch<float> memory(Sums::floats(rows, stride));
    const Sums all = Sums::at(memory.data(), rows, stride);
    all.clear(rows, stride);
    for (int32_t span = job.span_first; span < job.span_last; ++span, at += rows) {
      const Sums part = Sums::at(partials.data() + Sums::floats(at, stride), rows, stride);
      simd::with_simd([&]() __attribute__((always_inline)) { merge(all, part, rows, stride); });
    }
    store_results(call, job, all);
  }
}

}  // namespace thimble
