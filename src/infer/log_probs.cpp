#include "infer/log_probs.h"

#include "kernels/logits.h"

namespace thimble {

LogProbs log_probs(std::span<const float> logits, std::span<const uint32_t> allowed, int32_t token, int top) {
  const float total = log_sum_exp(logits, allowed);
  LogProbs out{logits[static_cast<size_t>(token)] - total, {}};
  if (top > 0)
    for (const Candidate& c : top_k(logits, top, allowed)) out.top.push_back({c.token, c.logit - total});
  return out;
}

}  // namespace thimble
