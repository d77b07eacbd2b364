#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace thimble {

// Guesses how a text goes on from what followed the same tokens before: in the prompt, whose words calls repeat, and
// in what was said (prompt look-up decoding; Saxena 2023, Yang et al. 2023, arXiv 2304.04487). A wrong guess costs
// rows of a batch, so each length of match keeps count of how often it was right, and is not asked where that doesn't
// pay.
class LookupDrafter {
 public:
  explicit LookupDrafter(std::span<const int32_t> text = {}) {
    for (const int32_t token : text) push(token);
  }

  void push(int32_t token);

  // At most `most` tokens that may follow; none where nothing matches or guessing doesn't pay beside `running`
  // sequences: the more of them share a pass over the weights, the less of it one row saves.
  std::vector<int32_t> draft(int running, int most);

  // How many of the last draft's tokens were offered to the model, and how many of these were what it says.
  void learn(int offered, int accepted);

 private:
  static constexpr int kLongest = 3;  // tokens that are matched

  struct Order {
    float right = 0.5f;  // share of drafted tokens that were right, of late
    int passed = 0;      // chances that were let go since it last drafted
  };

  std::vector<int32_t> text_;
  std::array<std::unordered_map<uint64_t, int32_t>, kLongest> next_;  // n tokens -> where what followed them stands
  std::array<Order, kLongest> orders_;
  int drafted_by_ = 0;  // tokens matched for the last draft
};

}  // namespace thimble
