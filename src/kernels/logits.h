#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thimble {

// One row of logits [vocab]. `allowed` holds one bit a token (token t is bit t % 32 of word t / 32), as constraints
// give it, or is empty for all tokens; forbidden tokens and NaN count as minus infinity. Equal logits: the lower id
// comes first.

// Whether the mask lets a token pass.
inline bool is_allowed(std::span<const uint32_t> allowed, int64_t token) {
  return allowed.empty() || ((allowed[static_cast<size_t>(token / 32)] >> (token % 32)) & 1) != 0;
}

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

// The parts below let a sampler find likely tokens and draw one without looking at every token by itself, which costs
// more than the head of a small model leaves for it. They look at a row in stretches of kStretch tokens.
inline constexpr size_t kStretch = 256;

// tops[s] = the largest allowed logit of stretch s; minus infinity where none is allowed.
void stretch_tops(std::span<const float> logits, std::span<const uint32_t> allowed, std::vector<float>& tops);

// top_k, where the stretches' tops are known already.
std::vector<Candidate> top_k(std::span<const float> logits, int64_t k, std::span<const uint32_t> allowed,
                             std::span<const float> tops);

// Appends the allowed tokens with low <= logit <= high in the order of their ids. Stretches whose top (as
// stretch_tops gave it) lies below `low` are passed over.
void collect(std::span<const float> logits, std::span<const uint32_t> allowed, std::span<const float> tops, float low,
             float high, std::vector<Candidate>& out);

// sums[s] = the sum over stretch s of exp((logit - top) * scale), top being the row's largest allowed logit.
void stretch_weights(std::span<const float> logits, std::span<const uint32_t> allowed, float top, float scale,
                     std::vector<float>& sums);

// The sum of exp(logit - top) over the tokens that collect() would give.
float weight_within(std::span<const float> logits, std::span<const uint32_t> allowed, std::span<const float> tops,
                    float top, float low, float high);

// The logit that the softmax gives on average: sum(p * logit), p among allowed tokens; top as above. The row's entropy
// is log_sum_exp less this.
float mean_logit(std::span<const float> logits, std::span<const uint32_t> allowed, float top);

}  // namespace thimble
