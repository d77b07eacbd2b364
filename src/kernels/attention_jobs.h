#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/attention_block.h"
#include "kernels/attention_plan.h"
#include "kernels/scratch.h"

// How attention's work is cut into jobs that threads take.
namespace thimble::attention {

inline constexpr int32_t kSpanKeys = kSpan * kKeys;
inline constexpr int kMicroRows = 6;       // rows a micro-kernel holds in registers
inline constexpr float kNothing = -1e30f;  // the maximum of no scores: finite, so that differences stay numbers

// Consecutive queries of one segment.
struct Queries {
  const AttentionSegment* segment = nullptr;
  int32_t first = 0;
  int32_t count = 0;

  int32_t position() const { return segment->position + first; }
  int64_t row() const { return segment->query_first + first; }
};

inline constexpr int kTotalLanes = 16;  // lanes that add up softmax's denominator

// What softmax has summed up: out = sum / total where total = the sum of the lanes of `total`.
struct Sums {
  float* sum = nullptr;    // [rows][stride]
  float* total = nullptr;  // [rows][16]
  float* top = nullptr;    // [rows], the largest score

  static size_t floats(int64_t rows, int stride) { return static_cast<size_t>(rows) * (stride + kTotalLanes + 1); }
  static Sums at(float* memory, int64_t rows, int stride) {
    return {memory, memory + rows * stride, memory + rows * (stride + kTotalLanes)};
  }
  Sums after(int64_t rows, int stride) const {  // what follows in memory
    return at(sum + floats(rows, stride), rows, stride);
  }
  Sums from_row(int64_t row, int stride) const { return {sum + row * stride, total + row * kTotalLanes, top + row}; }
  void clear(int64_t rows, int stride) const {
    std::fill(sum, sum + rows * stride, 0.0f);
    std::fill(total, total + rows * kTotalLanes, 0.0f);
    std::fill(top, top + rows, kNothing);
  }
};

// A query tile of one key head: query i of the tile and head h of the group stand in row i * group + h.
struct Job {
  std::vector<Queries> queries;  // of several segments only where they share the span's keys
  int kv_head = 0;
  int32_t span_first = 0;
  int32_t span_last = 0;    // one past
  std::vector<Sums> early;  // what other jobs have summed up of spans before span_first
  Sums to;                  // where the spans' sums go, one after the other; unset where the job finishes its rows
  int64_t cost = 0;

  int32_t count() const {
    int32_t total = 0;
    for (const Queries& q : queries) total += q.count;
    return total;
  }
};

// First position that a query at `position` sees.
inline int32_t first_seen(const AttentionPlan& plan, int32_t position) {
  return plan.window > 0 ? std::max(0, position - plan.window + 1) : 0;
}

// Multiplications that a job takes, but for a factor: reading a key costs about as much as a row that uses it, and
// unpacking it for many rows as much as eight.
int64_t job_cost(const AttentionPlan& plan, const AttentionShape& shape, const Job& job);

// A short past is summed up sooner than other threads could be woken.
inline constexpr int64_t kWorthThreads = 200'000;  // of job_cost

// One job for every tile and key head, each doing all of its spans.
std::vector<Job> make_jobs(const AttentionPlan& plan, const AttentionShape& shape);

// Takes spans out of jobs into jobs of their own, which run before: spans that small segments share, so that their
// keys are read and unpacked once for all of them (the system prompt and tools of many requests), and all spans where
// there are few jobs and long pasts, so that threads can share them, a few consecutive ones a job.
class EarlyJobs {
 public:
  // stride: head_dim, rounded up to whole vectors. Holds the early jobs' sums: must outlive the jobs' run.
  EarlyJobs(const AttentionPlan& plan, const AttentionShape& shape, int stride, std::vector<Job>& jobs);

  std::vector<Job> jobs;

 private:
  struct Taken {
    size_t index;  // among jobs
    std::vector<Job*> from;
  };
  void share(std::vector<Job>& whole);
  void spread(const AttentionPlan& plan, const AttentionShape& shape, std::vector<Job>& whole);
  void take(const std::vector<Job*>& from, int32_t spans);

  int group_;
  int stride_;
  std::vector<Taken> taken_;
  size_t floats_ = 0;
  Scratch<float> memory_{0};
};

}  // namespace thimble::attention
