#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "infer/lookup_drafter.h"
#include "infer/request.h"
#include "text/tokenizer.h"

namespace thimble {

// One request on its way to an answer: what was said, and which tokens are known to come next. It knows nothing of the
// batch or the cache; the engine computes what it asks for and hands it logits.
//
// Where a constraint leaves no choice, the text that must come is tokenised as the tokenizer would, and its tokens are
// taken without the model: always, so that an answer does not depend on how they are computed.
class Answering {
 public:
  // vocab: logits that the model gives.
  Answering(GenerateRequest request, const Tokenizer& tokenizer, int vocab);

  void begin();  // takes what must be said whatever the model thinks
  const GenerateRequest& request() const { return request_; }
  // Decided tokens that were not handed over yet, the prompt's first. The engine takes them from the front and computes
  // them; when none are left, the logits of the last one decide how the answer goes on.
  std::deque<int32_t>& known() { return known_; }

  // Chooses a token by its logits [vocab], and takes what must follow it. Ends the answer or leaves known() not empty.
  void decide(std::span<const float> logits);

  // A guess at what comes behind known(), and where it comes from (SpeculationOdds).
  struct Guess {
    std::vector<int32_t> tokens;
    int source = 0;
  };
  Guess look_up(SpeculationOdds& odds, int running);
  // The token with which forced text ends. It is the model's to choose, because what follows may belong to it, but
  // there are few others. look_up() gives it too, where it finds nothing that begins with it.
  Guess go_on(SpeculationOdds& odds, int running);
  std::vector<int32_t> text() const;  // tokens of the prompt and of what was said
  // As many of the tokens from the front as the constraint lets follow and the answer has room for.
  std::vector<int32_t> possible(std::vector<int32_t> tokens);
  void count_guess(int offered, int right);

  void cancel() { finish(FinishReason::kCancelled); }
  bool finished() const { return finished_; }
  bool started() const { return !answer_.tokens.empty(); }  // something was said
  int64_t room() const {  // tokens of prompt and answer at most
    return static_cast<int64_t>(request_.prompt.size()) + request_.max_tokens;
  }
  int64_t left() const { return request_.max_tokens - static_cast<int64_t>(answer_.tokens.size()); }
  Answer& answer() { return answer_; }

 private:
  int make_mask();
  void take_forced();
  int32_t choose(std::span<const float> logits);
  std::vector<int32_t> canonical(const std::string& text) const;
  void say_forced(int32_t token);
  void note(LogProbs known);  // where they were asked for
  void say(int32_t token);
  void send(std::string text, bool last);
  void finish(FinishReason reason);

  GenerateRequest request_;
  Tokenizer tokenizer_;
  size_t words_;  // of a mask of tokens
  Answer answer_;
  std::deque<int32_t> known_;
  Sampler sampler_;
  std::unique_ptr<Constraint> constraint_;
  std::vector<uint32_t> allowed_;  // of the next token; empty: all. Where there is a constraint, only if it was asked:
  bool masked_ = false;
  int32_t forced_end_ = -1;  // the token that writes what is left of a forced text; -1: none is left
  std::optional<LookupDrafter> drafter_;
  StreamDecoder decoder_;
  std::string unsent_;  // text that may yet be the beginning of a stop string
  Clock::time_point start_ = Clock::now();
  bool finished_ = false;
};

}  // namespace thimble
