#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "infer/activation_pool.h"
#include "infer/kv_cache.h"
#include "infer/prepared_model.h"
#include "text/tokenizer.h"

namespace thimble {

// A smaller model of the same vocabulary that guesses how texts go on, for a larger one to check in one pass
// (Leviathan et al. 2022, arXiv 2211.17192). It holds no state of its own for a text: what it read before is in its
// prefix tree, so a wrong guess needs no taking back.
class DraftModel {
 public:
  // Throws Error where its tokens are not those of `tokenizer`, or the cache does not fit into memory.
  DraftModel(std::shared_ptr<const PreparedModel> model, const Tokenizer& tokenizer, int64_t cache_tokens);

  struct Text {
    std::vector<int32_t> tokens;
    int most = 0;  // tokens to guess
  };
  // The likeliest continuation of each text, all in one batch; shorter where the cache is full.
  std::vector<std::vector<int32_t>> guess(std::span<const Text> texts);

  // What a guessed token costs beside a pass over the larger model's weights.
  double cost(const PreparedModel& larger) const;

 private:
  std::shared_ptr<const PreparedModel> model_;
  KvCache cache_;
  ActivationPool pool_;
};

}  // namespace thimble
