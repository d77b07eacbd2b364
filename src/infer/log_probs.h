#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thimble {

struct TokenLogProb {
  int32_t token = 0;
  float log_prob = 0;
  bool operator==(const TokenLogProb&) const = default;
};

struct LogProbs {
  float chosen = 0;
  std::vector<TokenLogProb> top;  // most likely first
};

inline constexpr int kMostTopLogProbs = 20;  // as OpenAI's API

// What the model itself thinks: the log-softmax of its logits before biases, penalties, filters and temperature, of
// `token` and of the `top` most likely tokens. `allowed` is the constraint's mask, if any (one bit a token): then
// among the tokens that it lets through, `token` one of them.
LogProbs log_probs(std::span<const float> logits, std::span<const uint32_t> allowed, int32_t token, int top);

}  // namespace thimble
