#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/progress.h"
#include "infer/activation_pool.h"
#include "infer/answering.h"
#include "infer/draft_model.h"
#include "infer/kv_cache.h"
#include "infer/prepared_model.h"
#include "infer/request.h"
#include "text/tokenizer.h"

namespace thimble {

struct EngineOptions {
  int64_t cache_tokens = 8192;  // room for all sequences together, and for remembered prefixes
  int max_batch = 16;           // sequences that run side by side
  int chunk = 512;              // most rows a step where nobody waits for the next word of an answer ...
  int busy_chunk = 128;         // ... and where somebody does: prompts are read in pieces beside running answers
  // Text that a constraint forces is computed in one pass, and guessed text is checked in one: never another answer,
  // only sooner.
  bool speculate = true;
  std::shared_ptr<const PreparedModel> draft = nullptr;  // a smaller model of the same vocabulary, for guesses
  int draft_tokens = 4;                                  // that it makes at a time
  std::optional<KvType> kv_type = std::nullopt;  // of the cache; not given: f16, or f32 where the model computes in f32
};

// The one way to generate: chat, evaluation, server and agents all use it. Requests join and leave at any step;
// prompts are read in chunks beside running answers, shared between those that wait; shared beginnings are computed
// once. Clients take turns: of those with the fewest running requests, the one whose request waits longest is next.
// Not thread-safe: one thread drives it, the kernels use the pool.
class Engine {
 public:
  using Id = int64_t;

  // Throws Error where the cache does not fit into memory.
  Engine(std::shared_ptr<const PreparedModel> model, Tokenizer tokenizer, const EngineOptions& options = {});

  // Throws Error where the prompt is empty or does not fit the context or the cache (with both numbers).
  Id submit(GenerateRequest request);
  // n answers to one prompt, which is computed once; the i-th is sampled with seed + i.
  std::vector<Id> submit(const GenerateRequest& request, int n);
  bool step();                     // one forward pass; false when there is nothing to do
  std::optional<Answer> take(Id);  // the answer, once finished
  void cancel(Id);
  // Drops what is remembered of finished requests: to be called where an adapter was changed, while none is running.
  void forget() { cache_.forget(); }

  // Submits all, keeps the batch full until all are done, answers in the order of the requests.
  std::vector<Answer> run(std::vector<GenerateRequest> requests, const ProgressFn& progress = {});

  // Logits of every position of a text from `from` on, [tokens - from, vocab], computed in slices that are handed to
  // `sink` in order.
  void logits(std::span<const int32_t> tokens, int adapter,
              const std::function<void(int64_t first_row, int64_t rows, const float* logits)>& sink, int64_t from = 0);

  int running() const { return static_cast<int>(running_.size()); }  // sequences in the batch
  int waiting() const { return static_cast<int>(waiting_.size()); }

  const PreparedModel& model() const { return *model_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const KvCache& cache() const { return cache_; }
  int64_t context() const;  // longest sequence: the model's context or the cache, whichever is smaller

 private:
  // A request that takes part in the batch.
  struct Running {
    Id id = 0;
    std::unique_ptr<Answering> answering;
    KvCache::Sequence sequence = -1;
    int32_t rows = 0;             // that the current step computes, drafts included
    Answering::Guess guess = {};  // that the current step checks
    bool waits_for_prompt = true; // its prompt is not computed yet

    int64_t promised(const KvCache& cache) const { return answering->room() - cache.length(sequence); }
  };
  struct Waiting {
    Id id = 0;
    std::unique_ptr<Answering> answering;
  };

  int cut(GenerateRequest& request) const;
  void collect(Id id, Answering& answering);
  bool admit();
  bool fits(const Running& newcomer) const;
  bool soon_known(const GenerateRequest& request) const;
  void guess();
  void take_rows(Running& running, int64_t most);
  void share_rows();
  void settle(Running& running, const Activation& logits, int64_t first_row);

  std::shared_ptr<const PreparedModel> model_;
  Tokenizer tokenizer_;
  EngineOptions options_;
  KvCache cache_;
  std::list<Waiting> waiting_;
  std::vector<Running> running_;
  std::map<Id, Answer> finished_;
  ActivationPool pool_;
  SpeculationOdds odds_;
  std::unique_ptr<DraftModel> draft_;
  Id next_id_ = 1;
};

}  // namespace thimble
