#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace thimble {

struct TokenBias {
  int32_t token = 0;
  float bias = 0;  // -100 (as good as never) to 100 (as good as always)
};

// How the next token is chosen from the logits. Every default is "off"; docs/sampling.md has the same for users.
// Steps in their order, which is llama.cpp's:
//   1. logit bias, 2. repetition penalty, 3. presence and frequency penalties, 4. DRY,
//   5. top-k, 6. typical, 7. top-p, 8. min-p, 9. temperature, 10. one draw.
// A constraint's mask comes before them all. Greedy decoding takes the most likely token after step 4: filters could
// only take it away.
struct SamplingOptions {
  float temperature = 0;  // 0: greedy; otherwise what the filters leave is flattened (> 1) or sharpened (< 1)
  int top_k = 0;          // > 0: only the k most likely
  float top_p = 1;    // < 1: only the smallest set of likeliest tokens with that much probability (arXiv 1904.09751)
  float min_p = 0;    // > 0: only tokens at least this likely, relative to the best (arXiv 2407.01082)
  float typical = 1;  // < 1: only the tokens whose surprise is nearest to the entropy, with that much probability
                      // together (arXiv 2202.00666)
  // Of tokens among the last `repeat_window` of prompt and answer (0: all), positive logits are divided and negative
  // ones multiplied by this (Keskar et al. 2019, arXiv 1909.05858, with transformers' and llama.cpp's mend for
  // negative logits).
  float repeat_penalty = 1;
  int repeat_window = 64;
  // Taken off the logits of tokens that the answer (not the prompt) holds, once, and for each time: OpenAI's
  // definition.
  float presence_penalty = 0;
  float frequency_penalty = 0;
  // "Don't repeat yourself": a token that would make a repetition of n tokens longer loses multiplier * base^(n -
  // allowed_length), n >= allowed_length, looking back over the last `dry_window` tokens of prompt and answer (0: all).
  // Repetitions don't reach across a breaker.
  float dry_multiplier = 0;
  float dry_base = 1.75f;
  int dry_allowed_length = 2;
  int dry_window = 0;
  std::vector<std::string> dry_breakers = {"\n", ":", "\"", "*"};
  std::vector<TokenBias> logit_bias = {};
  uint64_t seed = 0;

  bool penalizes() const;  // whether the choice depends on earlier tokens
  bool filters() const;    // whether steps 5 to 8 leave anything out
};

// Throws Error naming the option that is out of its range, or the biased token beyond the vocabulary.
void check(const SamplingOptions& options, int32_t vocab = std::numeric_limits<int32_t>::max());

}  // namespace thimble
