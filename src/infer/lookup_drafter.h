#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "infer/speculation_odds.h"

namespace thimble {

// Guesses how a text goes on from what followed the same tokens before: in the prompt, whose words calls repeat, and
// in what was said (prompt look-up decoding; Saxena 2023, Yang et al. 2023, arXiv 2304.04487).
class LookupDrafter {
 public:
  explicit LookupDrafter(std::span<const int32_t> text = {}) {
    for (const int32_t token : text) push(token);
  }

  void push(int32_t token);

  // At most `most` tokens that may follow; none where nothing matches, or where guessing doesn't pay.
  std::vector<int32_t> draft(SpeculationOdds& odds, int running, int most);

  int matched() const { return matched_; }  // tokens, for the last draft

 private:
  std::vector<int32_t> text_;
  // n tokens -> where what followed them stands
  std::array<std::unordered_map<uint64_t, int32_t>, SpeculationOdds::kLongestMatch> next_;
  int matched_ = 0;
};

}  // namespace thimble
