#include "kernels/attention_jobs.h"

#include <limits>
#include <utility>

#include "core/thread_pool.h"
#include "kernels/attention_few_rows.h"

namespace thimble::attention {
namespace {

// Queries a tile has: about 64 rows, a multiple of what the micro-kernel takes. Unpacking a block is then small
// against using it.
int32_t tile_queries(int group) {
  int32_t tile = (63 + group) / group;
  while (tile * group % kMicroRows != 0) ++tile;
  return tile;
}

// Positions from 0 on whose keys two segments have in common.
int32_t shared_positions(const AttentionSegment& a, const AttentionSegment& b) {
  int32_t shared = 0;
  for (size_t i = 0; i < std::min(a.ancestors.size(), b.ancestors.size()); ++i) {
    if (a.ancestors[i].first != b.ancestors[i].first) break;
    shared += std::min(a.ancestors[i].count, b.ancestors[i].count);
    if (a.ancestors[i].count != b.ancestors[i].count) break;
  }
  return shared;
}

}  // namespace

std::vector<Job> make_jobs(const AttentionPlan& plan, const AttentionShape& shape) {
  std::vector<Job> jobs;
  const int32_t tile = tile_queries(shape.heads / shape.kv_heads);
  for (const AttentionSegment& segment : plan.segments) {
    for (int32_t query = 0; query < segment.query_count; query += tile) {
      const Queries queries{&segment, query, std::min(tile, segment.query_count - query)};
      Job job;
      job.queries = {queries};
      const int32_t first = first_seen(plan, queries.position()), last = queries.position() + queries.count;
      job.span_first = first / kSpanKeys;
      job.span_last = (last - 1) / kSpanKeys + 1;
      for (job.kv_head = 0; job.kv_head < shape.kv_heads; ++job.kv_head) jobs.push_back(job);
    }
  }
  return jobs;
}

int64_t job_cost(const AttentionPlan& plan, const AttentionShape& shape, const Job& job) {
  int32_t first = std::numeric_limits<int32_t>::max(), last = 0;
  for (const Queries& q : job.queries) {
    first = std::min(first, first_seen(plan, q.position()));
    last = std::max(last, q.position() + q.count);
  }
  const int64_t keys = std::min(job.span_last * kSpanKeys, last) - std::max(job.span_first * kSpanKeys, first);
  const int64_t rows = int64_t{job.count()} * (shape.heads / shape.kv_heads);
  return std::max<int64_t>(keys, 0) * (rows + (rows <= kFewRows ? 1 : 8)) * shape.head_dim;
}

EarlyJobs::EarlyJobs(const AttentionPlan& plan, const AttentionShape& shape, int stride, std::vector<Job>& whole)
    : group_(shape.heads / shape.kv_heads), stride_(stride) {
  share(whole);
  spread(plan, shape, whole);
  memory_ = Scratch<float>(floats_);
  float* at = memory_.data();
  for (Taken& taken : taken_) {
    Job& early = jobs[taken.index];
    const int64_t rows = int64_t{early.count()} * group_;
    early.to = Sums::at(at, rows, stride_);
    Sums sums = early.to;
    for (int32_t span = early.span_first; span < early.span_last; ++span, sums = sums.after(rows, stride_)) {
      int64_t row = 0;
      for (Job* job : taken.from) {
        job->early.push_back(sums.from_row(row, stride_));
        row += int64_t{job->count()} * group_;
      }
    }
    at = sums.sum;
  }
}

void EarlyJobs::spread(const AttentionPlan& plan, const AttentionShape& shape, std::vector<Job>& whole) {
  const auto pool = static_cast<size_t>(threads().size());
  if (pool == 1 || whole.size() + jobs.size() >= 4 * pool) return;
  int64_t cost = 0;
  int32_t spans = 0;
  for (const Job& job : whole) {
    cost += job_cost(plan, shape, job);
    spans += job.span_last - job.span_first;
  }
  if (cost < kWorthThreads) return;
  // Several jobs a thread, so that none waits long for the last one; long ones otherwise, as each costs memory and has
  // to wait for its first keys.
  const int32_t taken = std::max(1, spans / static_cast<int32_t>(8 * pool));
  for (Job& job : whole)
    if (job.span_last - job.span_first > 1)
      while (job.span_first < job.span_last) take({&job}, std::min(taken, job.span_last - job.span_first));
}

void EarlyJobs::share(std::vector<Job>& whole_jobs) {
  const int32_t tile = tile_queries(group_);
  struct Cluster {
    std::vector<Job*> jobs;
    int32_t shared = 0;  // spans
    int32_t queries = 0;
  };
  std::vector<Cluster> clusters;
  for (Job& job : whole_jobs) {
    const Queries& queries = job.queries.front();
    const int32_t whole = queries.segment->position / kSpanKeys;
    if (queries.segment->query_count > tile / 2 || whole <= job.span_first) continue;
    Cluster* found = nullptr;
    for (Cluster& cluster : clusters) {
      const Job& leader = *cluster.jobs.front();
      if (leader.kv_head != job.kv_head || leader.span_first != job.span_first ||
          cluster.queries + queries.count > tile)
        continue;
      const int32_t shared =
          std::min(cluster.shared, shared_positions(*leader.queries.front().segment, *queries.segment) / kSpanKeys);
      if (shared <= job.span_first) continue;
      cluster.shared = shared;
      found = &cluster;
      break;
    }
    if (found == nullptr) found = &clusters.emplace_back(Cluster{{}, whole, 0});
    found->jobs.push_back(&job);
    found->queries += queries.count;
  }
  for (const Cluster& cluster : clusters)
    if (cluster.jobs.size() > 1)
      while (cluster.jobs.front()->span_first < cluster.shared) take(cluster.jobs, 1);
}

// The first spans of these jobs, which have them in common.
void EarlyJobs::take(const std::vector<Job*>& from, int32_t spans) {
  Job job;
  job.kv_head = from.front()->kv_head;
  job.span_first = from.front()->span_first;
  job.span_last = job.span_first + spans;
  for (Job* one : from) {
    job.queries.push_back(one->queries.front());
    one->span_first += spans;
  }
  floats_ += static_cast<size_t>(spans) * Sums::floats(int64_t{job.count()} * group_, stride_);
  taken_.push_back({jobs.size(), from});
  jobs.push_back(std::move(job));
}

}  // namespace thimble::attention
