#include "kernels/attention_backward.h"

#include <algorithm>
#include <cmath>

#include "core/thread_pool.h"

namespace thimble {

void attention_backward(GemmPrecision, const float* q, const float* k, const float* v, const float* out,
                        const float* lse, const float* dout, int64_t key_rows, const AttentionPlan& plan,
                        const AttentionShape& shape, float* dq, float* dk, float* dv) {
  const int64_t dim = shape.head_dim, heads = shape.heads, kv_heads = shape.kv_heads, group = heads / kv_heads;
  std::fill(dq, dq + plan.rows() * heads * dim, 0.0f);
  std::fill(dk, dk + key_rows * kv_heads * dim, 0.0f);
  std::fill(dv, dv + key_rows * kv_heads * dim, 0.0f);
  threads().parallel_for(kv_heads, [&](int64_t kv_head, int) {
    for (const AttentionSegment& segment : plan.segments)
      for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h)
        for (int64_t i = 0; i < segment.query_count; ++i) {
          const int64_t row = segment.query_first + i;
          const float* qr = q + (row * heads + h) * dim;
          const float* dor = dout + (row * heads + h) * dim;
          float* dqr = dq + (row * heads + h) * dim;
          float delta = 0;  // sum over the row's keys of probability times its gradient
          for (int64_t d = 0; d < dim; ++d) delta += dor[d] * out[(row * heads + h) * dim + d];
          const auto key = [&](int64_t key_row) {
            const float* kr = k + (key_row * kv_heads + kv_head) * dim;
            const float* vr = v + (key_row * kv_heads + kv_head) * dim;
            float score = 0, dp = 0;
            for (int64_t d = 0; d < dim; ++d) score += qr[d] * kr[d];
            for (int64_t d = 0; d < dim; ++d) dp += dor[d] * vr[d];
            const float p = std::exp(score * shape.scale - lse[row * heads + h]);
            const float ds = p * (dp - delta) * shape.scale;
            for (int64_t d = 0; d < dim; ++d) {
              dqr[d] += ds * kr[d];
              dk[(key_row * kv_heads + kv_head) * dim + d] += ds * qr[d];
              dv[(key_row * kv_heads + kv_head) * dim + d] += p * dor[d];
            }
          };
          const int64_t position = segment.position + i;
          const int64_t oldest = plan.window > 0 ? position - plan.window + 1 : 0;
          int64_t at = 0;  // position of the range's first key
          for (const KeyRange& range : segment.ancestors) {
            for (int64_t j = std::max<int64_t>(0, oldest - at); j < range.count; ++j) key(range.first + j);
            at += range.count;
          }
          for (int64_t j = std::max<int64_t>(0, oldest - at); j <= i; ++j) key(segment.key_first + j);
        }
  });
}

}  // namespace thimble
