#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "calls/constraint.h"
#include "core/progress.h"
#include "infer/activation_pool.h"
#include "infer/kv_cache.h"
#include "infer/prepared_model.h"
#include "infer/sampler.h"
#include "text/tokenizer.h"

namespace thimble {

struct EngineOptions {
  int64_t cache_tokens = 8192;  // room for all sequences together, and for remembered prefixes
  int max_batch = 16;           // sequences that run side by side
  int chunk = 512;              // most rows a step: long prompts are read in pieces beside running answers
};

struct GenerateRequest {
  std::vector<int32_t> prompt;
  int max_tokens = 256;
  SamplingOptions sampling;
  std::vector<std::string> stop;                   // the answer ends before the first of these
  const ConstraintSet* constraint = nullptr;       // must outlive the request
  // With a constraint that leaves the choice between calls and text: the answer calls where all tokens that open a call
  // are together at least this likely. Not given: the first token decides as any other. What text says can begin in
  // many ways, each less likely than the one way to begin a call, so that the likeliest token calls too often.
  std::optional<double> call_threshold;
  bool log_probs = false;                          // fill in Answer::log_probs
  int adapter = 0;                                 // as add_adapter returned; 0: the base model
  bool ignore_end = false;                         // go on after end-of-text tokens
  std::function<bool(std::string_view)> on_text;  // each piece of text as it is sure; return false to cancel
};

enum class FinishReason { kStop, kLength, kCancelled };

struct Answer {
  std::vector<int32_t> tokens;  // without the end token
  std::string text;
  FinishReason finish = FinishReason::kStop;
  int prompt_tokens = 0;
  int cached_tokens = 0;      // of the prompt, found in the cache
  std::optional<double> call_probability;  // of opening a call, where the constraint left the choice
  std::vector<float> log_probs;  // where asked for: of each token, then of the end, among those that were allowed
  double first_token_s = 0;   // from submit to the first sampled token
  double seconds = 0;         // from submit to the end
};

// The one way to generate: chat, evaluation, server and agents all use it. Requests join and leave at any step;
// prompts are read in chunks beside running answers; shared beginnings are computed once. Not thread-safe: one
// thread drives it, the kernels use the pool.
class Engine {
 public:
  using Id = int64_t;

  // Throws Error where the cache does not fit into memory.
  Engine(std::shared_ptr<const PreparedModel> model, Tokenizer tokenizer, const EngineOptions& options = {});
  ~Engine();

  // Throws Error where the prompt is empty or does not fit the context or the cache (with both numbers).
  Id submit(GenerateRequest request);
  bool step();                     // one forward pass; false when there is nothing to do
  std::optional<Answer> take(Id);  // the answer, once finished
  void cancel(Id);

  // Submits all, keeps the batch full until all are done, answers in the order of the requests.
  std::vector<Answer> run(std::vector<GenerateRequest> requests, const ProgressFn& progress = {});

  // Logits of every position of a text, [tokens, vocab], computed in slices that are handed to `sink` in order.
  void logits(std::span<const int32_t> tokens, int adapter,
              const std::function<void(int64_t first_row, int64_t rows, const float* logits)>& sink);

  const PreparedModel& model() const { return *model_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const KvCache& cache() const { return cache_; }
  int64_t context() const;  // longest sequence: the model's context or the cache, whichever is smaller

 private:
  struct Running;

  bool admit(int64_t& budget);
  void consume(Running& running, std::span<const float> logits);
  void finish(Running& running, FinishReason reason);

  std::shared_ptr<const PreparedModel> model_;
  Tokenizer tokenizer_;
  EngineOptions options_;
  KvCache cache_;
  std::deque<std::unique_ptr<Running>> waiting_;
  std::vector<std::unique_ptr<Running>> running_;
  std::map<Id, Answer> finished_;
  ActivationPool pool_;
  Id next_id_ = 1;
};

}  // namespace thimble
