#include "eval/calibrate.h"

#include <gtest/gtest.h>

#include <vector>

namespace thimble {
namespace {

std::vector<CallDecision> decisions(double due, double not_due, int of_each = 20) {
  std::vector<CallDecision> out;
  for (int i = 0; i < of_each; ++i) {
    out.push_back({due, true});
    out.push_back({not_due, false});
  }
  return out;
}

TEST(CallThreshold, LiesBetweenRowsThatAreDueACallAndRowsThatAreNot) {
  for (const auto& [due, not_due] : {std::pair{0.9, 0.1}, {0.3, 0.05}, {0.99, 0.8}}) {
    const auto threshold = choose_call_threshold(decisions(due, not_due));
    ASSERT_TRUE(threshold);
    EXPECT_LT(*threshold, due);
    EXPECT_GT(*threshold, not_due);
  }
  EXPECT_NEAR(*choose_call_threshold(decisions(0.9, 0.1)), 0.5, 1e-9);
}

TEST(CallThreshold, IsNotMovedFarByOneRow) {
  auto rows = decisions(0.9, 0.1);
  const double before = *choose_call_threshold(rows);
  rows.push_back({0.97, false});  // above it, all twenty calls would be lost
  EXPECT_NEAR(*choose_call_threshold(rows), before, 0.1);
}

TEST(CallThreshold, NeedsTenRowsOfEachKind) {
  EXPECT_TRUE(choose_call_threshold(decisions(0.9, 0.1, 10)));
  EXPECT_FALSE(choose_call_threshold(decisions(0.9, 0.1, 9)));
  EXPECT_FALSE(choose_call_threshold({}));
  EXPECT_FALSE(choose_call_threshold(std::vector<CallDecision>(50, {0.7, true})));
}

}  // namespace
}  // namespace thimble
