#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace thimble {
namespace {

const std::vector<float> kLogits = {0.0f, 2.0f, 1.0f, -1.0f, 2.0f};

std::vector<int> histogram(const SamplingOptions& options, std::vector<uint32_t> allowed = {}) {
  std::vector<int> counts(kLogits.size());
  Sampler sampler(options);
  for (int i = 0; i < 20000; ++i) ++counts[static_cast<size_t>(sampler.sample(kLogits, allowed))];
  return counts;
}

TEST(Sampler, GreedyTakesTheFirstOfTheMostLikely) { EXPECT_EQ(Sampler({}).sample(kLogits, {}), 1); }

TEST(Sampler, GreedyObeysTheMask) {
  const std::vector<uint32_t> allowed = {0b01101u};
  EXPECT_EQ(Sampler({}).sample(kLogits, allowed), 2);
}

TEST(Sampler, DrawsFromTheSoftmax) {
  const auto counts = histogram({.temperature = 1, .seed = 3});
  double total = 0;
  for (float l : kLogits) total += std::exp(l);
  for (size_t i = 0; i < kLogits.size(); ++i) {
    const double p = std::exp(kLogits[i]) / total;
    EXPECT_NEAR(counts[i] / 20000.0, p, 4 * std::sqrt(p * (1 - p) / 20000)) << i;
  }
}

TEST(Sampler, TopKKeepsTheBestK) {
  const auto counts = histogram({.temperature = 5, .top_k = 2, .seed = 3});
  EXPECT_EQ(counts[0] + counts[2] + counts[3], 0);
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[4], 0);
}

TEST(Sampler, TopPKeepsTheSmallestSetWithThatMass) {
  // Probabilities 0.37, 0.37, 0.14, 0.05, ...: two tokens make 0.74, the third makes 0.88.
  const auto counts = histogram({.temperature = 1, .top_p = 0.8f, .seed = 3});
  EXPECT_EQ(counts[0] + counts[3], 0);
  EXPECT_GT(counts[2], 0);
}

TEST(Sampler, MinPDropsWhatIsFarLessLikelyThanTheBest) {
  const auto counts = histogram({.temperature = 1, .min_p = 0.3f, .seed = 3});  // e^-1 = 0.37 stays, e^-2 goes
  EXPECT_GT(counts[2], 0);
  EXPECT_EQ(counts[0] + counts[3], 0);
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  Sampler a({.temperature = 1, .seed = 11}), b({.temperature = 1, .seed = 11}), c({.temperature = 1, .seed = 12});
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const int32_t token = a.sample(kLogits, {});
    EXPECT_EQ(token, b.sample(kLogits, {}));
    different += token != c.sample(kLogits, {});
  }
  EXPECT_GT(different, 0);
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  EXPECT_THROW(check({.temperature = -1}), Error);
  EXPECT_THROW(check({.top_k = -1}), Error);
  EXPECT_THROW(check({.top_p = 0}), Error);
  EXPECT_THROW(check({.min_p = 1.5f}), Error);
}

}  // namespace
}  // namespace thimble
