#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calls/constraint.h"
#include "infer/log_probs.h"
#include "infer/sampler.h"

namespace thimble {

// What becomes of a prompt that leaves no room for max_tokens: it is refused where not even one fits, or cut.
enum class Overlong {
  kRefuse,
  kCutStart,  // the oldest tokens go, but for the one that begins a text
  kCutEnd,
};

struct Answer;

struct GenerateRequest {
  std::vector<int32_t> prompt;
  int max_tokens = 256;
  Overlong overlong = Overlong::kRefuse;
  SamplingOptions sampling;
  std::vector<std::string> stop;                   // the answer ends before the first of these
  const ConstraintSet* constraint = nullptr;       // must outlive the request
  // With a constraint that leaves the choice between calls and text: the answer calls where all tokens that open a call
  // are together at least this likely. Not given: the first token decides as any other. What text says can begin in
  // many ways, each less likely than the one way to begin a call, so that the likeliest token calls too often.
  std::optional<double> call_threshold;
  bool log_probs = false;                          // fill in Answer::log_probs
  int top_log_probs = 0;                           // > 0: and Answer::top_log_probs, so many a token, at most 20
  int min_tokens = 0;                              // end tokens are forbidden before so many tokens
  int adapter = 0;                                 // as add_adapter returned; 0: the base model
  int64_t client = 0;                              // whose request it is: waiting clients take turns
  bool ignore_end = false;                         // go on after end-of-text tokens
  // Each piece of text as it is sure, and the answer up to its tokens; return false to cancel.
  std::function<bool(std::string_view piece, const Answer& so_far)> on_text;
};

enum class FinishReason { kStop, kLength, kCancelled };

struct Answer {
  std::vector<int32_t> tokens;  // without the end token
  std::string text;
  std::optional<int32_t> end_token;  // with which the model ended it; none where anything else did
  FinishReason finish = FinishReason::kStop;
  int prompt_tokens = 0;
  int cut_tokens = 0;         // of the prompt, because it was too long
  int cached_tokens = 0;      // of the prompt, found in the cache
  int forced_tokens = 0;      // of the answer: the constraint left no choice
  int masks = 0;              // times the constraint was asked for all tokens that may come next
  int drafted_tokens = 0;     // guessed by look-up ...
  int accepted_tokens = 0;    // ... and right
  std::optional<double> call_probability;  // of opening a call, where the constraint left the choice
  std::vector<float> log_probs;  // where asked for: of each token, then of the end, among those that were allowed
  std::vector<std::vector<TokenLogProb>> top_log_probs;  // likewise, the likeliest at each place (infer/log_probs.h)
  double first_token_s = 0;   // from submit to the first token
  double seconds = 0;         // from submit to the end
};

}  // namespace thimble
