#pragma once

#include <array>
#include <cstddef>

namespace thimble {

// How often guesses were right of late, by where they come from: a match of one, two or three tokens, a draft model, or
// text that a constraint forces. A wrong guess costs rows of a batch; a source that doesn't pay is let alone, and tried
// again now and then.
class SpeculationOdds {
 public:
  static constexpr int kLongestMatch = 3;  // tokens; as a source, a match is its length
  static constexpr int kDraftModel = kLongestMatch + 1;
  static constexpr int kForcedText = kLongestMatch + 2;

  // Whether to guess beside `running` sequences: the more of them share a pass over the weights, the less of it one row
  // saves. cost: of making one guess, in passes.
  bool pays(int source, int running, double cost = 0);
  void learn(int source, int offered, int right);

 private:
  struct Record {
    double right = 0.5;  // share of offered tokens that were right
    int passed = 0;      // chances that were let go since the last guess
  };
  std::array<Record, kForcedText> records_;
};

}  // namespace thimble
