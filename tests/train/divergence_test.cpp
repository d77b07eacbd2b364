#include "train/divergence.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"

namespace thimble {
namespace {

TEST(Divergence, NoiseIsNone) {
  for (const double spread : {0.1, 1.0, 2.0}) {
    int stopped = 0;
    for (uint64_t seed = 0; seed < 200; ++seed) {
      DivergenceWatch watch;
      Random random(seed);
      for (int step = 0; step < 300; ++step) {
        // Losses that fall, with noise of single rows: log-normal, so that some are many times the median.
        const double level = 0.05 + 2.5 * std::exp(-step / 60.0);
        if (watch.add(level * std::exp(0.5 * spread * random.normal()), std::exp(spread * random.normal()))) {
          ++stopped;
          break;
        }
      }
    }
    EXPECT_EQ(stopped, 0) << spread;
  }
}

TEST(Divergence, OneBatchOfOddRowsIsNone) {
  DivergenceWatch watch;
  for (int step = 0; step < 100; ++step) EXPECT_FALSE(watch.add(step % 25 == 24 ? 9.0 : 0.3, 1)) << step;
  for (int step = 0; step < 4; ++step) EXPECT_FALSE(watch.add(20.0, 1));
  EXPECT_FALSE(watch.add(0.3, 1)) << "it came back";
}

TEST(Divergence, TheFifthStepThatStandsOutIs) {
  DivergenceWatch watch;
  for (int step = 0; step < 40; ++step) EXPECT_FALSE(watch.add(1.0 + 0.01 * (step % 7), 1));
  for (int step = 0; step < 4; ++step) EXPECT_FALSE(watch.add(4.0 + step, 1));
  const auto found = watch.add(8.0, 1);
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->gradient);
  EXPECT_EQ(found->value, 8.0);
  EXPECT_DOUBLE_EQ(found->highest, 1.06);
}

TEST(Divergence, FromTheFirstStepsOn) {
  DivergenceWatch watch;
  watch.add(2.5, 1);
  int steps = 1;
  while (!watch.add(10.5, 1)) ASSERT_LT(++steps, 10);
  EXPECT_EQ(steps, 5);
}

TEST(Divergence, OfTheGradientIsByAFactorOfAHundred) {
  DivergenceWatch watch;
  for (int step = 0; step < 40; ++step) EXPECT_FALSE(watch.add(1, 2));
  for (int step = 0; step < 10; ++step) EXPECT_FALSE(watch.add(1, 150)) << "75 times";
  bool found = false;
  for (int step = 0; step < 5; ++step)
    if (const auto finding = watch.add(1, 20000)) found = finding->gradient;
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace thimble
