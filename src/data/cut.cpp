#include "data/cut.h"

#include <algorithm>

namespace thimble {

bool cut_earlier_turns(Row& row, const std::function<bool(const Row&)>& fits) {
  std::vector<Turn>& turns = row.turns;
  const std::ptrdiff_t first = !turns.empty() && turns.front().role == "system" ? 1 : 0;
  for (;;) {
    if (turns.begin() + first == turns.end()) return false;
    const auto next = std::find_if(turns.begin() + first + 1, turns.end(),
                                   [](const Turn& turn) { return turn.role == "user"; });
    if (next == turns.end()) return false;
    turns.erase(turns.begin() + first, next);
    if (fits(row)) return true;
  }
}

}  // namespace thimble
