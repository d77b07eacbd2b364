#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/random.h"
#include "infer/dry.h"
#include "infer/sampling_options.h"
#include "infer/token_history.h"
#include "kernels/logits.h"

namespace thimble {

struct TokenProbability {
  int32_t token = 0;
  double probability = 0;
};

// Takes `tokens` out of `allowed`, a mask over `vocab` tokens (empty: all are allowed); where nothing else would be
// left, changes nothing.
void forbid(std::vector<uint32_t>& allowed, size_t vocab, std::span<const int32_t> tokens);

// Chooses one token a call. The same seed, history and logits give the same tokens at one instruction set.
//
// sample() with a mask draws exactly one uniform number where the temperature is above 0 and none where it is greedy,
// whatever the options, mask and logits, and changes nothing else: what it says depends on the history only through
// what accept() was told. So drafted tokens can be verified by sampling at each drafted place in turn, as long as
// each sampled token is accepted and given out; sampling ends at the first that differs from its draft.
class Sampler {
 public:
  // The options must have passed check(). `breakers` are those of DRY, with the tokenizer that knows them in tokens.
  explicit Sampler(SamplingOptions options, SequenceBreakers breakers = {});

  void prime(std::span<const int32_t> prompt);  // what penalties may look back on; starts over
  // logits [vocab]; allowed: one bit a token, or empty for all, at least one.
  int32_t sample(std::span<const float> logits, std::span<const uint32_t> allowed);
  // The same choice where it is cheap to ask whether one token is allowed and dear to make the mask, which is made only
  // where need be: where none of the likeliest, or of a few that are drawn from all tokens, is allowed, and where
  // filters look at all that is. Greedy gives the token that the mask would. Draws have its distribution: one of all
  // tokens, drawn again while it is not allowed, p + (1 - a) p + ... = p / a for a token of probability p where what is
  // allowed has a; each takes a number. -1 where the mask lets no token pass.
  int32_t sample(std::span<const float> logits, const std::function<bool(int32_t token)>& allows,
                 const std::function<std::span<const uint32_t>()>& mask);
  void accept(int32_t token);    // notes what the answer went on with
  void take_back(size_t count);  // forgets the last accepted tokens; random numbers stay drawn

  // What sample() would draw from: tokens with a probability above 0, in no order. Draws nothing.
  std::vector<TokenProbability> distribution(std::span<const float> logits, std::span<const uint32_t> allowed);

  const Random& random() const { return random_; }

 private:
  std::span<const float> adjust(std::span<const float> logits);
  bool filter(std::span<const float> row, std::span<const uint32_t> allowed, float top);
  template <class Key>
  void keep_mass(double top, double mass, const Key& key);
  double weigh();
  int32_t draw_from_row(std::span<const float> row, std::span<const uint32_t> allowed, float top, double uniform);

  struct Ranked {
    double key;
    int32_t token;
    double weight;
  };

  SamplingOptions options_;
  SequenceBreakers breakers_;
  bool penalizes_;
  TokenHistory history_;
  Random random_;
  // Kept to save allocations:
  std::vector<float> row_, tops_, sums_;
  std::vector<Candidate> candidates_;
  std::vector<Ranked> ranked_;
  std::vector<double> weights_;
};

}  // namespace thimble
