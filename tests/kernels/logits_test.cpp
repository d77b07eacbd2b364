#include "kernels/logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu.h"
#include "core/random.h"

namespace thimble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class LogitsTest : public ::testing::Test {
 protected:
  void TearDown() override { force_cpu(cpu_detected()); }
};

std::vector<float> random_logits(size_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> logits(count);
  for (float& v : logits) v = std::round(8 * random.normal()) / 2;  // with ties
  return logits;
}

std::vector<uint32_t> random_mask(size_t count, uint64_t one_in) {
  Random random(9);
  std::vector<uint32_t> mask((count + 31) / 32);
  for (size_t i = 0; i < count; ++i)
    if (random.below(one_in) == 0) mask[i / 32] |= 1u << (i % 32);
  return mask;
}

// Allowed tokens, most likely first.
std::vector<int32_t> order(const std::vector<float>& logits, const std::vector<uint32_t>& mask) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < logits.size(); ++i)
    if ((mask.empty() || ((mask[i / 32] >> (i % 32)) & 1) != 0) && logits[i] > -kInfinity)
      tokens.push_back(static_cast<int32_t>(i));
  std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  return tokens;
}

TEST_F(LogitsTest, MatchReferenceForOddSizesAndMasks) {
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const size_t count : {1, 15, 16, 17, 31, 33, 64, 100, 1001, 49152}) {
      std::vector<float> logits = random_logits(count, count);
      if (count > 20) logits[7] = NAN, logits[11] = -kInfinity;
      for (const auto& mask : {std::vector<uint32_t>{}, random_mask(count, 3), random_mask(count, 1000)}) {
        const std::vector<int32_t> expected = order(logits, mask);
        EXPECT_EQ(argmax(logits, mask), expected.empty() ? -1 : expected.front()) << count;
        double total = 0;
        for (const int32_t token : expected) total += std::exp(static_cast<double>(logits[static_cast<size_t>(token)]));
        if (expected.empty())
          EXPECT_EQ(log_sum_exp(logits, mask), -kInfinity);
        else
          EXPECT_NEAR(log_sum_exp(logits, mask), std::log(total), 1e-5) << count;
        for (const int64_t k : {0, 1, 3, 40, 100000}) {
          const std::vector<Candidate> best = top_k(logits, k, mask);
          ASSERT_EQ(best.size(), std::min(static_cast<size_t>(k), expected.size()));
          for (size_t i = 0; i < best.size(); ++i) {
            ASSERT_EQ(best[i].token, expected[i]) << count << " k " << k << " at " << i;
            ASSERT_EQ(best[i].logit, logits[static_cast<size_t>(expected[i])]);
          }
        }
      }
    }
  }
}

TEST_F(LogitsTest, LogSoftmaxSumsToOneAndMayWorkInPlace) {
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    std::vector<float> logits = random_logits(1000, 3);
    const std::vector<float> before = logits;
    log_softmax(logits, logits.data());
    double total = 0;
    for (const float v : logits) total += std::exp(static_cast<double>(v));
    EXPECT_NEAR(total, 1, 1e-5);
    EXPECT_NEAR(logits[3] - logits[900], before[3] - before[900], 1e-5);
  }
}

}  // namespace
}  // namespace thimble
