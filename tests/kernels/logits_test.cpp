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
    for (const size_t count : {1, 15, 16, 17, 31, 33, 64, 100, 255, 256, 257, 1001, 49152}) {
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
        for (const int64_t k : {0, 1, 3, 40, 191, 193, 5000, 100000}) {
          const std::vector<Candidate> best = top_k(logits, k, mask);
          ASSERT_EQ(best.size(), std::min(static_cast<size_t>(k), expected.size()));
          for (size_t i = 0; i < best.size(); ++i) {
            ASSERT_EQ(best[i].token, expected[i]) << count << " k " << k << " at " << i;
            ASSERT_EQ(best[i].logit, logits[static_cast<size_t>(expected[i])]);
          }
        }
        std::vector<float> tops;
        stretch_tops(logits, mask, tops);
        ASSERT_EQ(tops.size(), (count + kStretch - 1) / kStretch);
        if (expected.empty()) {
          for (const float top : tops) EXPECT_EQ(top, -kInfinity);
          continue;
        }
        const float top = logits[static_cast<size_t>(expected.front())];
        EXPECT_EQ(*std::max_element(tops.begin(), tops.end()), top);
        double mean = 0;
        for (const int32_t token : expected) {
          const double logit = logits[static_cast<size_t>(token)];
          mean += std::exp(logit) / total * logit;
        }
        EXPECT_NEAR(mean_logit(logits, mask, top), mean, 1e-4) << count;
        for (const float scale : {0.5f, 1.0f, 3.0f, 1e30f}) {
          std::vector<float> sums;
          stretch_weights(logits, mask, top, scale, sums);
          ASSERT_EQ(sums.size(), tops.size());
          std::vector<double> wanted(sums.size());
          for (const int32_t token : expected)
            wanted[static_cast<size_t>(token) / kStretch] +=
                std::exp((static_cast<double>(logits[static_cast<size_t>(token)]) - top) * scale);
          for (size_t s = 0; s < sums.size(); ++s) EXPECT_NEAR(sums[s], wanted[s], 1e-5 * wanted[s] + 1e-30) << s;
        }
        for (const auto& [low, high] :
             {std::pair{-kInfinity, kInfinity}, {top - 3, top - 1}, {top, top}, {1.0f, 0.0f}}) {
          std::vector<Candidate> found;
          collect(logits, mask, tops, low, high, found);
          std::vector<int32_t> inside;
          for (const int32_t token : expected)
            if (const float x = logits[static_cast<size_t>(token)]; x >= low && x <= high) inside.push_back(token);
          std::sort(inside.begin(), inside.end());
          ASSERT_EQ(found.size(), inside.size()) << low << " to " << high;
          for (size_t i = 0; i < inside.size(); ++i) {
            ASSERT_EQ(found[i].token, inside[i]);
            ASSERT_EQ(found[i].logit, logits[static_cast<size_t>(inside[i])]);
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
