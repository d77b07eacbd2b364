#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace thimble {

// How often matches of one, two and three tokens were right of late, over all that an engine answers. A wrong guess
// costs rows of a batch; a length of match that doesn't pay is let alone, and tried again now and then.
class LookupOdds {
 public:
  static constexpr int kLongest = 3;  // tokens that are matched

  // Whether to guess by a match of `length` tokens beside `running` sequences: the more of them share a pass over the
  // weights, the less of it one row saves.
  bool pays(int length, int running);
  void learn(int length, int offered, int right);

 private:
  struct Order {
    float right = 0.5f;  // share of offered tokens that were right
    int passed = 0;      // chances that were let go since the last guess
  };
  std::array<Order, kLongest> orders_;
};

// Guesses how a text goes on from what followed the same tokens before: in the prompt, whose words calls repeat, and
// in what was said (prompt look-up decoding; Saxena 2023, Yang et al. 2023, arXiv 2304.04487).
class LookupDrafter {
 public:
  explicit LookupDrafter(std::span<const int32_t> text = {}) {
    for (const int32_t token : text) push(token);
  }

  void push(int32_t token);

  // At most `most` tokens that may follow; none where nothing matches, or where guessing doesn't pay.
  std::vector<int32_t> draft(LookupOdds& odds, int running, int most);

  int matched() const { return matched_; }  // tokens, for the last draft

 private:
  std::vector<int32_t> text_;
  // n tokens -> where what followed them stands
  std::array<std::unordered_map<uint64_t, int32_t>, LookupOdds::kLongest> next_;
  int matched_ = 0;
};

}  // namespace thimble
