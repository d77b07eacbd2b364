#pragma once

// Attention by its definition, in doubles, forward and backward, over plans of every kind.

#include <functional>
#include <string>
#include <vector>

#include "kernel_test_tools.h"
#include "kernels/attention_plan.h"

namespace thimble::test {

// Calls seen(query row, key row) for every pair, as the plan defines it.
inline void for_pairs(const AttentionPlan& plan, const std::function<void(int64_t, int64_t)>& seen) {
  for (const AttentionSegment& s : plan.segments)
    for (int64_t i = 0; i < s.query_count; ++i) {
      std::vector<int64_t> keys;
      for (const KeyRange& range : s.ancestors)
        for (int64_t j = 0; j < range.count; ++j) keys.push_back(range.first + j);
      for (int64_t j = 0; j <= i; ++j) keys.push_back(s.key_first + j);
      const auto position = static_cast<int64_t>(keys.size()) - 1;
      for (int64_t j = 0; j <= position; ++j)
        if (plan.window == 0 || j > position - plan.window) seen(s.query_first + i, keys[static_cast<size_t>(j)]);
    }
}

struct AttentionCase {
  std::string name;
  AttentionPlan plan;
  AttentionShape shape;
};

inline AttentionCase make_case(std::string name, std::vector<AttentionSegment> segments, int heads, int kv_heads,
                               int head_dim, int window = 0) {
  AttentionCase c{std::move(name), {std::move(segments), window}, {heads, kv_heads, head_dim, 0.3f}};
  int32_t first = 0;
  for (AttentionSegment& s : c.plan.segments) {
    s.query_first = s.key_first = first;
    s.position = 0;
    for (const KeyRange& range : s.ancestors) s.position += range.count;
    first += s.query_count;
  }
  return c;
}
inline AttentionSegment rows(int32_t count, std::vector<KeyRange> ancestors = {}) {
  return {0, count, 0, 0, std::move(ancestors)};
}

inline std::vector<AttentionCase> attention_cases() {
  return {
      make_case("ShortRows", {rows(2), rows(3)}, 2, 1, 8),
      make_case("PackedRows", {rows(40), rows(1), rows(70), rows(64), rows(33)}, 9, 3, 64),
      make_case("ManyRows", {rows(5), rows(9), rows(7), rows(3), rows(8), rows(4)}, 4, 4, 20),
      make_case("OneLongRow", {rows(300)}, 6, 2, 24),
      make_case("PrefixTree",
                {rows(100), rows(30, {{0, 100}}), rows(45, {{0, 100}}), rows(20, {{0, 100}, {100, 30}}),
                 rows(17, {{0, 60}, {130, 5}})},
                4, 2, 16),
      make_case("Window", {rows(150), rows(90, {{0, 150}})}, 2, 2, 48, 37),
  };
}

// Random inputs of a case, what it makes of them, and the gradients. Inputs pass through `made`, such as a rounding.
struct AttentionReference {
  std::vector<float> q, k, v, dout, out, lse, dq, dk, dv;

  AttentionReference(const AttentionCase& c, Random& random, const std::function<float(float)>& made = {}) {
    const int64_t rows = c.plan.rows(), dim = c.shape.head_dim, heads = c.shape.heads, kv = c.shape.kv_heads;
    q = random_floats(rows * heads * dim, random), dout = random_floats(rows * heads * dim, random);
    k = random_floats(rows * kv * dim, random), v = random_floats(rows * kv * dim, random);
    if (made)
      for (auto* values : {&q, &k, &v, &dout})
        for (float& x : *values) x = made(x);
    std::vector<double> sums(static_cast<size_t>(rows * heads)), out64(q.size());
    const auto dot = [&](const float* a, const float* b) {
      double total = 0;
      for (int64_t d = 0; d < dim; ++d) total += static_cast<double>(a[d]) * static_cast<double>(b[d]);
      return total;
    };
    const auto q_at = [&](int64_t r, int64_t h) { return static_cast<size_t>((r * heads + h) * dim); };
    const auto k_at = [&](int64_t r, int64_t h) { return static_cast<size_t>((r * kv + h / (heads / kv)) * dim); };
    for_pairs(c.plan, [&](int64_t i, int64_t j) {
      for (int64_t h = 0; h < heads; ++h) {
        const double e = std::exp(dot(&q[q_at(i, h)], &k[k_at(j, h)]) * c.shape.scale);
        sums[static_cast<size_t>(i * heads + h)] += e;
        for (int64_t d = 0; d < dim; ++d) out64[q_at(i, h) + d] += e * v[k_at(j, h) + d];
      }
    });
    out.resize(q.size()), lse.resize(sums.size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(out64[i] / sums[i / dim]);
    for (size_t i = 0; i < lse.size(); ++i) lse[i] = static_cast<float>(std::log(sums[i]));

    dq.resize(q.size()), dk.resize(k.size()), dv.resize(v.size());
    for_pairs(c.plan, [&](int64_t i, int64_t j) {
      for (int64_t h = 0; h < heads; ++h) {
        const size_t a = q_at(i, h), b = k_at(j, h);
        const double p = std::exp(dot(&q[a], &k[b]) * c.shape.scale) / sums[static_cast<size_t>(i * heads + h)];
        const double ds = p * (dot(&dout[a], &v[b]) - dot(&dout[a], &out[a])) * c.shape.scale;
        for (int64_t d = 0; d < dim; ++d) {
          dq[a + d] += static_cast<float>(ds * k[b + d]);
          dk[b + d] += static_cast<float>(ds * q[a + d]);
          dv[b + d] += static_cast<float>(p * dout[a + d]);
        }
      }
    });
  }
};

}  // namespace thimble::test
