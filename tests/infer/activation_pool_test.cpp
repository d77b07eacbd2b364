#include "infer/activation_pool.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace thimble {
namespace {

// What a layer holds at one time.
void pass(ActivationPool& pool, int64_t rows) {
  const Act x = pool.get(rows, 64), q = pool.get(rows, 64), k = pool.get(rows, 16);
  const Act gate = pool.get(rows, 176), up = pool.get(rows, 176);
}

TEST(ActivationPool, HoldsWhatTheLargestPassNeedsWhateverCameBefore) {
  ActivationPool pool;
  Random random(1);
  for (int i = 0; i < 2000; ++i) pass(pool, 1 + static_cast<int64_t>(random.below(300)));
  pass(pool, 300);
  const size_t settled = pool.bytes();
  EXPECT_LE(settled, 5 * 300 * 176 * sizeof(float));
  for (int i = 0; i < 2000; ++i) pass(pool, 1 + static_cast<int64_t>(random.below(300)));
  EXPECT_EQ(pool.bytes(), settled);
}

TEST(ActivationPool, GivesTheBufferThatCameBackLast) {
  ActivationPool pool;
  const float* first = pool.get(4, 8)->values.data();
  EXPECT_EQ(pool.get(2, 8)->values.data(), first);
  const Act held = pool.get(4, 8);
  EXPECT_EQ(held->values.data(), first);
  EXPECT_NE(pool.get(4, 8)->values.data(), first);
}

}  // namespace
}  // namespace thimble
