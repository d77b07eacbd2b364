#include "kernels/attention_jobs.h"

#include <utility>

#include "core/thread_pool.h"

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

EarlyJobs::EarlyJobs(int group, int stride, std::vector<Job>& whole) : group_(group), stride_(stride) {
  share(whole);
  if (const auto pool = static_cast<size_t>(threads().size()); pool > 1 && whole.size() + jobs.size() < 4 * pool)
    for (Job& job : whole)
      while (job.span_last - job.span_first > 1) take({&job});
  memory_ = Scratch<float>(floats_);
  float* at = memory_.data();
  for (Taken& taken : taken_) {
    const int64_t rows = int64_t{jobs[taken.index].count()} * group_;
    jobs[taken.index].to = Sums::at(at, rows, stride_);
    at += Sums::floats(rows, stride_);
    int64_t row = 0;
    for (Job* job : taken.from) {
      job->early.push_back(jobs[taken.index].to.from_row(row, stride_));
      row += int64_t{job->count()} * group_;
    }
  }
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
      while (cluster.jobs.front()->span_first < cluster.shared) take(cluster.jobs);
}

// The first span of these jobs, which have it in common.
void EarlyJobs::take(const std::vector<Job*>& from) {
  Job job;
  job.kv_head = from.front()->kv_head;
  job.span_first = from.front()->span_first;
  job.span_last = job.span_first + 1;
  for (Job* one : from) {
    job.queries.push_back(one->queries.front());
    ++one->span_first;
  }
  floats_ += Sums::floats(int64_t{job.count()} * group_, stride_);
  taken_.push_back({jobs.size(), from});
  jobs.push_back(std::move(job));
}

}  // namespace thimble::attention
