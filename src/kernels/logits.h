#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thimble {

// One row of logits [vocab]. `allowed` holds one bit a token (token t is bit t % 32 of word t / 32), as constraints
// give it, or is empty for all tokens; forbidden tokens and NaN count as minus infinity. Equal logits: the lower id
// comes first.

// The most likely allowed token, or -1 where none is allowed.
int32_t argmax(std::span<const float> logits, std::span<const uint32_t> allowed = {});

// log(sum(exp(logits))) over the allowed tokens; minus infinity where none is.
float log_sum_exp(std::span<const float> logits, std::span<const uint32_t> allowed = {});

// out[t] = logits[t] - log_sum_exp(logits), out [vocab]; may be the same memory.
void log_softmax(std::span<const float> logits, float* out);

struct Candidate {
  int32_t token = 0;
  float logit = 0;
};
// The min(k, allowed) most likely tokens, most likely first.
std::vector<Candidate> top_k(std::span<const float> logits, int64_t k, std::span<const uint32_t> allowed = {});

}  // namespace thimble
