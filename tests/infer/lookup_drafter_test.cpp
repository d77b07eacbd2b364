#include "infer/lookup_drafter.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

using Tokens = std::vector<int32_t>;

TEST(LookupDrafter, GoesOnAsTheLastMatchDid) {
  const Tokens text = {1, 2, 3, 40, 41, 42, 9, 1, 2, 3, 50, 51, 52, 7, 1, 2, 3};
  LookupDrafter drafter(text);
  EXPECT_EQ(drafter.draft(1, 3), (Tokens{50, 51, 52}));
  EXPECT_EQ(drafter.draft(1, 7), (Tokens{50, 51, 52, 7, 1, 2, 3}));
}

TEST(LookupDrafter, PrefersTheLongerMatch) {
  const Tokens text = {5, 6, 7, 100, 0, 7, 200, 0, 5, 6, 7};
  LookupDrafter drafter(text);
  EXPECT_EQ(drafter.draft(1, 1), (Tokens{100}));
}

TEST(LookupDrafter, SaysNothingWhereNothingMatches) {
  const Tokens text = {1, 2, 3};
  LookupDrafter drafter(text);
  EXPECT_TRUE(drafter.draft(1, 8).empty());
  EXPECT_TRUE(LookupDrafter().draft(1, 8).empty());
}

TEST(LookupDrafter, StopsWhereItIsWrongAndTriesAgainLater) {
  LookupDrafter drafter(Tokens{1, 2, 3, 4, 1, 2, 3});
  int drafts = 0;
  for (int i = 0; i < 100; ++i) {
    const Tokens draft = drafter.draft(1, 7);
    if (draft.empty()) continue;
    ++drafts;
    drafter.learn(static_cast<int>(draft.size()), 0);
  }
  EXPECT_GE(drafts, 5);
  EXPECT_LE(drafts, 15);
}

TEST(LookupDrafter, AsksForMoreWhereManySequencesShareAPass) {
  LookupDrafter drafter(Tokens{1, 2, 3, 4, 1, 2, 3});
  ASSERT_FALSE(drafter.draft(1, 7).empty());
  drafter.learn(4, 2);  // right half of the time
  EXPECT_FALSE(drafter.draft(1, 7).empty());
  EXPECT_TRUE(drafter.draft(16, 7).empty());
}

}  // namespace
}  // namespace thimble
