#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace thimble {

// The tokens of prompt and answer so far, and how often each was, kept up to date token by token for penalties.
class TokenHistory {
 public:
  using Counts = std::unordered_map<int32_t, int>;  // only tokens that were there

  // recent() looks back over `window` tokens; 0: over all.
  explicit TokenHistory(size_t window) : window_(window) {}

  void prime(std::span<const int32_t> prompt);  // starts over
  void accept(int32_t token);
  void take_back(size_t count);  // the last tokens of the answer; at most as many as were accepted

  std::span<const int32_t> tokens() const { return tokens_; }
  const Counts& recent() const { return recent_; }  // of the last tokens of prompt and answer
  const Counts& answer() const { return answer_; }  // of the answer alone

 private:
  void enter(int32_t token);

  size_t window_, prompt_ = 0;
  std::vector<int32_t> tokens_;
  Counts recent_, answer_;
};

}  // namespace thimble
