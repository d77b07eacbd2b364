#pragma once
#include <algorithm>
#include <cmath>
#include <vector>
#include "kernels/attention_plan.h"
#include "core/thread_pool.h"
namespace thimble {
inline void plain_attention_forward(const float* q, const float* k, const float* v, const AttentionPlan& plan,
                                    const AttentionShape& s, float* out, float* lse) {
  const int64_t hd = s.head_dim, qw = int64_t{s.heads} * hd, kw = int64_t{s.kv_heads} * hd, group = s.heads / s.kv_heads;
  struct Job { const AttentionSegment* seg; int32_t i; };
  std::vector<Job> jobs;
  for (const auto& seg : plan.segments) for (int32_t i = 0; i < seg.query_count; ++i) jobs.push_back({&seg, i});
  threads().parallel_for(static_cast<int64_t>(jobs.size()), [&](int64_t j, int) {
    const auto& seg = *jobs[j].seg; const int32_t i = jobs[j].i;
    std::vector<int32_t> keys; int32_t pos = 0; const int32_t my = seg.position + i;
    const auto push = [&](int32_t first, int32_t count) { for (int32_t n = 0; n < count; ++n, ++pos) if (plan.window <= 0 || pos > my - plan.window) keys.push_back(first + n); };
    for (const auto& a : seg.ancestors) push(a.first, a.count);
    push(seg.key_first, i + 1);
    std::vector<float> score(keys.size());
    const int64_t r = seg.query_first + i;
    for (int h = 0; h < s.heads; ++h) {
      const float* qq = q + r * qw + h * hd; float top = -1e30f;
      for (size_t n = 0; n < keys.size(); ++n) { const float* kk = k + keys[n] * kw + (h / group) * hd; float d = 0; for (int64_t c = 0; c < hd; ++c) d += qq[c] * kk[c]; score[n] = d * s.scale; top = std::max(top, score[n]); }
      float sum = 0; for (auto& x : score) { x = std::exp(x - top); sum += x; }
      float* o = out + r * qw + h * hd; std::fill(o, o + hd, 0.0f);
      for (size_t n = 0; n < keys.size(); ++n) { const float* vv = v + keys[n] * kw + (h / group) * hd; const float p = score[n] / sum; for (int64_t c = 0; c < hd; ++c) o[c] += p * vv[c]; }
      lse[r * s.heads + h] = top + std::log(sum);
    }
  });
}
}  // namespace thimble
