#include "kernels/attention_backward.h"

#include <gtest/gtest.h>

#include "core/thread_pool.h"
#include "attention_reference.h"

namespace thimble {
namespace {

using test::EachCpu;
using test::relative_difference;

TEST(AttentionBackward, MatchesTheDefinitionForEveryKindOfPlan) {
  Random random(5);
  for (const test::AttentionCase& c : test::attention_cases()) {
    SCOPED_TRACE(c.name);
    const test::AttentionReference ref(c, random);
    const auto& [q, k, v, dout, out, lse, dq, dk, dv] = ref;
    const int64_t rows = c.plan.rows();
    EachCpu().run([&](CpuLevel level) {
      SCOPED_TRACE(cpu_level_name(level));
      for (const auto precision : {GemmPrecision::kF32, GemmPrecision::kBF16}) {
        std::vector<float> dq2(q.size(), 1.0f), dk2(k.size(), 1.0f), dv2(v.size(), 1.0f);
        attention_backward(precision, q.data(), k.data(), v.data(), out.data(), lse.data(), dout.data(), rows, c.plan,
                           c.shape, dq2.data(), dk2.data(), dv2.data());
        const double limit = precision == GemmPrecision::kF32 ? 1e-5 : 1.5e-2;
        EXPECT_LT(relative_difference(dq2.data(), dq.data(), static_cast<int64_t>(dq.size())), limit);
        EXPECT_LT(relative_difference(dk2.data(), dk.data(), static_cast<int64_t>(dk.size())), limit);
        EXPECT_LT(relative_difference(dv2.data(), dv.data(), static_cast<int64_t>(dk.size())), limit);
      }
    });
    std::vector<std::vector<float>> results;
    const int before = threads().size();
    for (const int count : {1, 2, 3}) {
      set_threads(count);
      std::vector<float> all(q.size() + 2 * k.size());
      attention_backward(GemmPrecision::kF32, q.data(), k.data(), v.data(), out.data(), lse.data(), dout.data(), rows,
                         c.plan, c.shape, all.data(), all.data() + q.size(), all.data() + q.size() + k.size());
      results.push_back(std::move(all));
    }
    set_threads(before);
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
  }
}

}  // namespace
}  // namespace thimble
