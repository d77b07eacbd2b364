#include "data/cut.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

std::string roles(const Row& row) {
  std::string out;
  for (const Turn& turn : row.turns) out += turn.role[0] == 's' ? 'S' : turn.role[0];
  return out;
}

Row conversation(std::initializer_list<const char*> speakers) {
  Row row;
  for (const char* role : speakers) row.turns.push_back({role, role});
  return row;
}

TEST(CutEarlierTurns, TakesTheOldestExchangesWholeAndNeverTheLast) {
  for (const auto& [most, left] : {std::pair<size_t, const char*>{7, "Suatauat"}, {5, "Suat"}}) {
    Row row = conversation({"system", "user", "assistant", "user", "assistant", "tool", "assistant", "user",
                            "assistant", "tool"});
    EXPECT_TRUE(cut_earlier_turns(row, [&, n = most](const Row& r) { return r.turns.size() <= n + 1; }));
    EXPECT_EQ(roles(row), left);
  }
}

TEST(CutEarlierTurns, SaysWhereThatDoesNotSuffice) {
  const auto never = [](const Row&) { return false; };
  Row row = conversation({"user", "assistant", "user"});
  EXPECT_FALSE(cut_earlier_turns(row, never));
  EXPECT_EQ(roles(row), "u");
  Row one = conversation({"system", "user"});
  EXPECT_FALSE(cut_earlier_turns(one, [](const Row&) { return true; })) << "nothing to take";
  EXPECT_EQ(roles(one), "Su");
  Row none;
  EXPECT_FALSE(cut_earlier_turns(none, never));
}

}  // namespace
}  // namespace thimble
