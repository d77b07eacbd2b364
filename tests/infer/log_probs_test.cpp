#include "infer/log_probs.h"

#include <gtest/gtest.h>

#include <cmath>

namespace thimble {
namespace {

TEST(LogProbs, AreTheLogSoftmaxOfTheModelsLogits) {
  const std::vector<float> logits = {0.0f, 2.0f, 1.0f, -1.0f, 2.0f};
  double total = 0;
  for (const float l : logits) total += std::exp(l);
  const LogProbs out = log_probs(logits, {}, 2, 3);
  EXPECT_NEAR(out.chosen, 1 - std::log(total), 1e-6);
  ASSERT_EQ(out.top.size(), 3u);
  EXPECT_EQ(out.top[0].token, 1);  // of equal ones the lower id first
  EXPECT_EQ(out.top[1].token, 4);
  EXPECT_EQ(out.top[2].token, 2);
  EXPECT_NEAR(out.top[0].log_prob, 2 - std::log(total), 1e-6);
  EXPECT_EQ(out.top[2].log_prob, out.chosen);
}

TEST(LogProbs, AreAmongTheAllowedTokens) {
  const std::vector<float> logits = {0.0f, 2.0f, 1.0f, -1.0f, 2.0f};
  const std::vector<uint32_t> allowed = {0b01001u};
  const LogProbs out = log_probs(logits, allowed, 3, 20);
  ASSERT_EQ(out.top.size(), 2u);
  EXPECT_EQ(out.top[0].token, 0);
  EXPECT_NEAR(std::exp(out.top[0].log_prob) + std::exp(out.top[1].log_prob), 1, 1e-6);
  EXPECT_NEAR(out.chosen, -1 - std::log(1 + std::exp(-1)), 1e-6);
  EXPECT_TRUE(log_probs(logits, allowed, 3, 0).top.empty());
}

}  // namespace
}  // namespace thimble
