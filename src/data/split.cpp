#include "data/split.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "core/random.h"
#include "data/fold.h"

namespace thimble {

Split split_rows(std::span<const Row> rows, double dev_share, uint64_t seed) {
  // Rows that ask the same are one group, which has the stratum of its first row.
  std::map<std::string, std::vector<size_t>> groups;
  for (size_t i = 0; i < rows.size(); ++i) groups[fold_words(rows[i].query())].push_back(i);
  std::map<std::string, std::vector<const std::vector<size_t>*>> strata;
  for (const auto& [key, members] : groups) {
    const Row& row = rows[members.front()];
    strata[row.calls.empty() ? "no call " + row.kind : row.calls.front().name].push_back(&members);
  }
  Random random(seed);
  std::vector<bool> in_dev(rows.size());
  size_t taken = 0, seen = 0;
  for (auto& [name, members] : strata) {
    random.shuffle(members);
    seen += members.size();
    // Rounded over the strata together, so that many small ones add up to the share.
    const auto due = static_cast<size_t>(std::llround(dev_share * static_cast<double>(seen)));
    for (size_t i = 0; i < members.size() && taken < due; ++i, ++taken) {
      for (const size_t row : *members[i]) in_dev[row] = true;
    }
  }
  if (taken == 0 && dev_share > 0 && groups.size() > 1) {
    for (const size_t row : *strata.begin()->second.front()) in_dev[row] = true;
  }
  Split split;
  for (size_t i = 0; i < rows.size(); ++i) (in_dev[i] ? split.dev : split.train).push_back(i);
  return split;
}

}  // namespace thimble
