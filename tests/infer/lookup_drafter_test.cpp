#include "infer/lookup_drafter.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

using Tokens = std::vector<int32_t>;

struct LookupDrafterTest : testing::Test {
  SpeculationOdds odds;
};

TEST_F(LookupDrafterTest, GoesOnAsTheLastMatchDid) {
  const Tokens text = {1, 2, 3, 40, 41, 42, 9, 1, 2, 3, 50, 51, 52, 7, 1, 2, 3};
  LookupDrafter drafter(text);
  EXPECT_EQ(drafter.draft(odds, 1, 3), (Tokens{50, 51, 52}));
  EXPECT_EQ(drafter.draft(odds, 1, 7), (Tokens{50, 51, 52, 7, 1, 2, 3}));
}

TEST_F(LookupDrafterTest, PrefersTheLongerMatch) {
  const Tokens text = {5, 6, 7, 100, 0, 7, 200, 0, 5, 6, 7};
  LookupDrafter drafter(text);
  EXPECT_EQ(drafter.draft(odds, 1, 1), (Tokens{100}));
}

TEST_F(LookupDrafterTest, SaysNothingWhereNothingMatches) {
  const Tokens text = {1, 2, 3};
  LookupDrafter drafter(text);
  EXPECT_TRUE(drafter.draft(odds, 1, 8).empty());
  EXPECT_TRUE(LookupDrafter().draft(odds, 1, 8).empty());
}

TEST_F(LookupDrafterTest, StopsWhereItIsWrongAndTriesAgainLater) {
  LookupDrafter drafter(Tokens{1, 2, 3, 4, 1, 2, 3});
  int drafts = 0;
  for (int i = 0; i < 100; ++i) {
    const Tokens draft = drafter.draft(odds, 1, 7);
    if (draft.empty()) continue;
    ++drafts;
    odds.learn(drafter.matched(), static_cast<int>(draft.size()), 0);
  }
  EXPECT_GE(drafts, 5);
  EXPECT_LE(drafts, 15);
}

TEST_F(LookupDrafterTest, AsksForMoreWhereManySequencesShareAPass) {
  LookupDrafter drafter(Tokens{1, 2, 3, 4, 1, 2, 3});
  EXPECT_FALSE(drafter.draft(odds, 1, 7).empty());
  EXPECT_TRUE(drafter.draft(odds, 16, 7).empty());  // right half of the time, to begin with
}

}  // namespace
}  // namespace thimble
