#include "infer/draft_model.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "infer/infer_ops.h"
#include "kernels/logits.h"

namespace thimble {
namespace {

constexpr int64_t kChunk = 512;  // most rows of a text that are read in one pass

void check_same_tokens(const Tokenizer& ours, const Tokenizer& theirs) {
  const int32_t size = std::max(ours.vocab_size(), theirs.vocab_size());
  for (int32_t id = 0; id < size; ++id)
    if (ours.token_bytes(id) != theirs.token_bytes(id))
      throw Error(fmt::format("the draft model's token {} is '{}', the model's '{}'; a draft model must have the same "
                              "vocabulary, so take a smaller model of the same kind",
                              id, ours.token_bytes(id), theirs.token_bytes(id)));
}

}  // namespace

DraftModel::DraftModel(std::shared_ptr<const PreparedModel> model, const Tokenizer& tokenizer, int64_t cache_tokens)
    : model_(std::move(model)),
      cache_({.layers = model_->model().config.layers,
              .kv_heads = model_->model().config.kv_heads,
              .head_dim = model_->model().config.head_dim,
              .capacity = cache_tokens,
              .type = KvType::kF16}) {
  check_same_tokens(Tokenizer::from(model_->model().vocabulary), tokenizer);
}

double DraftModel::cost(const PreparedModel& larger) const {
  return static_cast<double>(model_->bytes()) / static_cast<double>(larger.bytes());
}

std::vector<std::vector<int32_t>> DraftModel::guess(std::span<const Text> texts) {
  struct Guessing {
    const Text* text;
    std::vector<int32_t>* out;
    KvCache::Sequence sequence;
    std::vector<int32_t> known;  // not in the cache yet
    bool full = false;           // the cache has no room for it
  };
  std::vector<std::vector<int32_t>> out(texts.size());
  std::vector<Guessing> active;
  const int64_t context = std::min<int64_t>(model_->model().config.context, cache_.capacity());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto& tokens = texts[i].tokens;
    if (texts[i].most <= 0 || tokens.empty() || static_cast<int64_t>(tokens.size()) + texts[i].most > context) continue;
    const auto sequence = cache_.open(0, tokens);
    active.push_back({&texts[i], &out[i], sequence, {tokens.begin() + cache_.length(sequence), tokens.end()}});
  }
  while (!active.empty()) {
    InferBatch batch;
    std::vector<int32_t> wanted;
    std::vector<Guessing*> deciding;
    int64_t budget = kChunk;
    for (Guessing& g : active) {
      const auto rows = static_cast<int32_t>(std::min<int64_t>(budget, static_cast<int64_t>(g.known.size())));
      g.full = !cache_.append(g.sequence, std::span(g.known).first(static_cast<size_t>(rows)));
      if (rows == 0 || g.full) continue;
      budget -= rows;
      const int32_t first = batch.add(cache_, g.sequence, rows, 0);
      g.known.erase(g.known.begin(), g.known.begin() + rows);
      if (!g.known.empty()) continue;
      wanted.push_back(first + rows - 1);
      deciding.push_back(&g);
    }
    if (!batch.tokens.empty()) {
      InferOps ops(*model_, cache_, batch, pool_);
      const Act hidden = model_->model().forward(ops);
      if (!wanted.empty()) {
        const Act logits = ops.logits(hidden, wanted);
        for (size_t i = 0; i < deciding.size(); ++i) {
          const int32_t token = argmax({logits->row(static_cast<int64_t>(i)), static_cast<size_t>(logits->cols)});
          deciding[i]->out->push_back(token);
          deciding[i]->known.push_back(token);
        }
      }
    }
    std::erase_if(active, [&](const Guessing& g) {
      const bool done = g.full || static_cast<int>(g.out->size()) >= g.text->most;
      if (done) cache_.close(g.sequence);
      return done;
    });
  }
  return out;
}

}  // namespace thimble
