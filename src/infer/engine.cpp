#include "infer/engine.h"

#include <fmt/core.h>

#include <algorithm>
#include <cassert>

#include "core/error.h"
#include "infer/infer_ops.h"

namespace thimble {
namespace {

KvCacheOptions cache_options(const PreparedModel& model, const EngineOptions& options) {
  const ModelConfig& config = model.model().config;
  return {.layers = config.layers,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .capacity = options.cache_tokens,
          .type = options.kv_type.value_or(model.precision() == MatmulPrecision::kF32 ? KvType::kF32 : KvType::kF16)};
}

size_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  size_t n = 0;
  while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
  return n;
}

}  // namespace

Engine::Engine(std::shared_ptr<const PreparedModel> model, Tokenizer tokenizer, const EngineOptions& options)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      cache_(cache_options(*model_, options_)) {
  if (options_.draft) draft_ = std::make_unique<DraftModel>(options_.draft, tokenizer_, options_.cache_tokens);
}

int64_t Engine::context() const {
  return std::min<int64_t>(model_->model().config.context, options_.cache_tokens);
}

// Cuts a prompt that is too long, as the request says, so that an answer of max_tokens, or of half the context, fits
// behind it; gives how many tokens went.
int Engine::cut(GenerateRequest& request) const {
  const int64_t room = context() - std::clamp<int64_t>(request.max_tokens, 1, (context() + 1) / 2);
  const int64_t over = static_cast<int64_t>(request.prompt.size()) - room;
  if (request.overlong == Overlong::kRefuse || over <= 0 || room <= 1) return 0;
  auto from = request.prompt.begin();
  if (request.overlong == Overlong::kCutEnd) from += room;
  else if (tokenizer_.bos() == request.prompt.front()) ++from;
  request.prompt.erase(from, from + over);
  return static_cast<int>(over);
}

Engine::Id Engine::submit(GenerateRequest request) {
  if (request.prompt.empty()) throw Error("the prompt is empty; give at least one token");
  const int went = cut(request);
  const auto size = static_cast<int64_t>(request.prompt.size());
  if (size >= context())
    throw Error(fmt::format("the prompt has {} tokens, but at most {} fit (model context {}, cache {}); shorten it, let "
                            "it be cut, or give a larger context",
                            size, context() - 1, model_->model().config.context, options_.cache_tokens));
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= model_->model().config.vocab)
      throw Error(fmt::format("the prompt holds token {}, but the model's vocabulary ends at {}", token,
                              model_->model().config.vocab - 1));
  check(request.sampling, model_->model().config.vocab);
  if (request.max_tokens < 1)
    throw Error(fmt::format("an answer of at most {} tokens: must be 1 or more", request.max_tokens));
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens)
    throw Error(fmt::format("min tokens {}: must be between 0 and max tokens, which is {}", request.min_tokens,
                            request.max_tokens));
  if (request.top_log_probs < 0 || request.top_log_probs > kMostTopLogProbs)
    throw Error(fmt::format("top log-probabilities {}: must be between 0 and {}", request.top_log_probs,
                            kMostTopLogProbs));
  request.max_tokens = static_cast<int>(std::min<int64_t>(request.max_tokens, context() - size));
  waiting_.push_back({next_id_, std::make_unique<Answering>(std::move(request), tokenizer_,
                                                           model_->model().config.vocab)});
  waiting_.back().answering->answer().cut_tokens = went;
  return next_id_++;
}

std::vector<Engine::Id> Engine::submit(const GenerateRequest& request, int n) {
  std::vector<Id> ids;
  for (int i = 0; i < n; ++i) {
    GenerateRequest one = request;
    one.sampling.seed += static_cast<uint64_t>(i);
    ids.push_back(submit(std::move(one)));
  }
  return ids;
}

void Engine::cancel(Id id) {
  for (auto& r : running_)
    if (r.id == id) r.answering->cancel();
  for (auto& w : waiting_)
    if (w.id == id) w.answering->cancel();
}

std::optional<Answer> Engine::take(Id id) {
  const auto found = finished_.find(id);
  if (found == finished_.end()) return std::nullopt;
  Answer answer = std::move(found->second);
  finished_.erase(found);
  return answer;
}

void Engine::collect(Id id, Answering& answering) { finished_.emplace(id, std::move(answering.answer())); }

// Whether a request would soon find more of its prompt in the cache: one that is being read now begins alike.
bool Engine::soon_known(const GenerateRequest& request) const {
  return std::ranges::any_of(running_, [&](const Running& r) {
    if (!r.waits_for_prompt || r.answering->request().adapter != request.adapter) return false;
    const auto read = static_cast<size_t>(cache_.length(r.sequence));
    return common_prefix(r.answering->request().prompt, request.prompt) > read + 16;
  });
}

// Whether all that run, and a newcomer that opened its sequence, can be finished: what open sequences hold, shared
// beginnings once, and all that they may still add.
bool Engine::fits(const Running& newcomer) const {
  int64_t need = cache_.held() + newcomer.promised(cache_);
  for (const Running& r : running_) need += r.promised(cache_);
  return need <= cache_.capacity();
}

// Moves one waiting request into the batch; false where none can join.
bool Engine::admit() {
  if (static_cast<int>(running_.size()) >= options_.max_batch) return false;
  std::map<int64_t, int> busy;  // running requests of a client
  for (const Running& r : running_) ++busy[r.answering->request().client];
  auto next = waiting_.end();
  int fewest = 0;
  for (auto w = waiting_.begin(); w != waiting_.end(); ++w) {
    const GenerateRequest& request = w->answering->request();
    const auto found = busy.find(request.client);
    const int count = found == busy.end() ? 0 : found->second;
    if ((next != waiting_.end() && count >= fewest) || soon_known(request)) continue;
    next = w;
    fewest = count;
    if (count == 0) break;
  }
  if (next == waiting_.end()) return false;

  Running r{.id = next->id, .answering = std::move(next->answering)};
  const GenerateRequest& request = r.answering->request();
  r.sequence = cache_.open(request.adapter, request.prompt);
  if (!fits(r) && !running_.empty()) {
    cache_.close(r.sequence);
    next->answering = std::move(r.answering);
    return false;
  }
  waiting_.erase(next);
  const int32_t cached = cache_.length(r.sequence);
  auto& known = r.answering->known();
  known.erase(known.begin(), known.begin() + cached);
  r.answering->answer().cached_tokens = cached;
  r.answering->begin();
  running_.push_back(std::move(r));
  return true;
}

// Guesses how the running answers go on.
void Engine::guess() {
  if (!options_.speculate) return;
  const auto deciding =
      static_cast<int>(std::ranges::count_if(running_, [](const Running& r) { return !r.waits_for_prompt; }));
  std::vector<Running*> unguessed;
  for (Running& r : running_) {
    if (r.waits_for_prompt) {
      r.guess = r.answering->go_on(odds_, std::max(deciding, 1));
      continue;
    }
    r.guess = r.answering->look_up(odds_, deciding);
    if (r.guess.tokens.empty() && r.answering->left() > 1) unguessed.push_back(&r);
  }
  if (!draft_ || unguessed.empty() ||
      !odds_.pays(SpeculationOdds::kDraftModel, deciding, draft_->cost(*model_)))
    return;
  std::vector<DraftModel::Text> texts;
  for (const Running* r : unguessed) texts.push_back({r->answering->text(), options_.draft_tokens});
  auto guesses = draft_->guess(texts);
  for (size_t i = 0; i < unguessed.size(); ++i)
    unguessed[i]->guess = {unguessed[i]->answering->possible(std::move(guesses[i])), SpeculationOdds::kDraftModel};
}

// Gives a sequence up to `most` rows of the step: what is known to come next, then guesses.
void Engine::take_rows(Running& r, int64_t most) {
  auto& known = r.answering->known();
  most = std::min<int64_t>(most, static_cast<int64_t>(known.size()));
  if (!options_.speculate && !r.waits_for_prompt) most = std::min<int64_t>(most, 1);
  std::vector<int32_t> tokens(known.begin(), known.begin() + most);
  if (most < static_cast<int64_t>(known.size())) r.guess = {};
  tokens.insert(tokens.end(), r.guess.tokens.begin(), r.guess.tokens.end());
  if (!cache_.append(r.sequence, tokens)) {  // what it was promised is there; guesses may find no room
    tokens.resize(static_cast<size_t>(most));
    r.guess = {};
    if (!cache_.append(r.sequence, tokens)) return;
  }
  known.erase(known.begin(), known.begin() + most);
  r.rows = static_cast<int32_t>(tokens.size());
}

// Running answers come first; what is left of the chunk reads prompts, the same share of each, so that a short one
// isn't kept waiting by a long one.
void Engine::share_rows() {
  int64_t budget = options_.chunk;
  int64_t prompts = 0;
  for (Running& r : running_) {
    r.rows = 0;
    r.guess = {};
    prompts += r.waits_for_prompt ? 1 : 0;
  }
  if (prompts < static_cast<int64_t>(running_.size())) budget = std::min(options_.busy_chunk, options_.chunk);
  guess();
  for (Running& r : running_) {
    if (r.waits_for_prompt) continue;
    take_rows(r, std::max<int64_t>(budget, 1));
    budget -= r.rows;
  }
  if (prompts == 0) return;
  budget = std::max<int64_t>(budget, options_.busy_chunk / 4);  // answers with many guesses leave room for prompts
  // Shortest first: what they leave of their share is for those behind.
  std::vector<Running*> reading;
  for (Running& r : running_)
    if (r.waits_for_prompt) reading.push_back(&r);
  std::ranges::stable_sort(reading, {}, [](Running* r) { return r->answering->known().size(); });
  for (Running* r : reading) {
    if (budget <= 0) break;
    take_rows(*r, (budget + prompts - 1) / prompts);
    budget -= r->rows;
    --prompts;
  }
}

bool Engine::step() {
  const auto drop_finished = [this] {
    for (Running& r : running_) {
      if (!r.answering->finished()) continue;
      cache_.close(r.sequence);
      collect(r.id, *r.answering);
    }
    std::erase_if(running_, [](const Running& r) { return r.answering->finished(); });
  };
  std::erase_if(waiting_, [this](Waiting& w) {
    if (!w.answering->finished()) return false;
    collect(w.id, *w.answering);
    return true;
  });
  drop_finished();
  while (admit()) {
  }
  drop_finished();
  // One adapter's rows stand together.
  std::ranges::stable_sort(running_, {}, [](const Running& r) { return r.answering->request().adapter; });
  share_rows();

  InferBatch batch;
  std::vector<int32_t> wanted;  // rows whose logits decide
  std::vector<std::pair<Running*, int64_t>> deciding;  // and where their logits begin
  for (Running& r : running_) {
    if (r.rows == 0) continue;
    const int32_t first = batch.add(cache_, r.sequence, r.rows, r.answering->request().adapter);
    if (!r.answering->known().empty()) continue;
    r.waits_for_prompt = false;
    deciding.emplace_back(&r, static_cast<int64_t>(wanted.size()));
    for (int32_t row = r.rows - 1 - static_cast<int32_t>(r.guess.tokens.size()); row < r.rows; ++row)
      wanted.push_back(first + row);
  }
  if (batch.tokens.empty()) return !running_.empty() || !waiting_.empty();

  InferOps ops(*model_, cache_, batch, pool_);
  const Act hidden = model_->model().forward(ops);
  if (!wanted.empty()) {
    const Act logits = ops.logits(hidden, wanted);
    for (const auto& [r, first] : deciding) settle(*r, *logits, first);
  }
  drop_finished();
  return !running_.empty() || !waiting_.empty();
}

// Decides by the logits behind the last known token, then by those behind each guess as long as it was right: guesses
// change when tokens are computed, never which.
void Engine::settle(Running& r, const Activation& logits, int64_t first_row) {
  auto& known = r.answering->known();
  const std::vector<int32_t>& guess = r.guess.tokens;
  const auto offered = static_cast<int32_t>(guess.size());
  int32_t right = 0;
  do {
    r.answering->decide({logits.row(first_row + right), static_cast<size_t>(logits.cols)});
    while (right < offered && !known.empty() && guess[static_cast<size_t>(right)] == known.front()) {
      known.pop_front();
      ++right;
    }
  } while (known.empty() && !r.answering->finished());
  if (offered == 0) return;
  r.answering->count_guess(offered, right);
  odds_.learn(r.guess.source, offered, right);
  cache_.roll_back({r.sequence, cache_.length(r.sequence) - (offered - right)});
}

std::vector<Answer> Engine::run(std::vector<GenerateRequest> requests, const ProgressFn& progress) {
  std::vector<Id> ids;
  for (auto& request : requests) ids.push_back(submit(std::move(request)));
  const auto total = static_cast<double>(ids.size());
  size_t told = static_cast<size_t>(-1);
  while (step()) {
    if (progress && finished_.size() != told)
      progress({"answering", static_cast<double>(told = finished_.size()), total, "rows", ""});
  }
  std::vector<Answer> answers;
  for (const Id id : ids) answers.push_back(std::move(*take(id)));
  return answers;
}

void Engine::logits(std::span<const int32_t> tokens, int adapter,
                    const std::function<void(int64_t, int64_t, const float*)>& sink, int64_t from) {
  if (tokens.empty() || static_cast<int64_t>(tokens.size()) > context())
    throw Error(fmt::format("the text has {} tokens; between 1 and {} fit", tokens.size(), context()));
  // A tree of its own, so that every position is computed and none is found in the cache.
  const auto sequence = cache_.open(-1 - adapter, tokens.first(1));
  for (size_t done = 0; done < tokens.size();) {
    const size_t rows = std::min<size_t>(static_cast<size_t>(options_.chunk), tokens.size() - done);
    if (!cache_.append(sequence, tokens.subspan(done, rows))) {
      cache_.close(sequence);
      throw Error("the cache is full of running sequences; wait for them or give a larger cache");
    }
    InferBatch batch;
    batch.add(cache_, sequence, static_cast<int32_t>(rows), adapter);
    InferOps ops(*model_, cache_, batch, pool_);
    const Act hidden = model_->model().forward(ops);
    constexpr size_t kSlice = 64;
    const size_t skipped = std::min(rows, static_cast<size_t>(std::max<int64_t>(from - static_cast<int64_t>(done), 0)));
    for (size_t at = skipped; at < rows; at += kSlice) {
      std::vector<int32_t> wanted;
      for (size_t i = at; i < std::min(rows, at + kSlice); ++i) wanted.push_back(static_cast<int32_t>(i));
      const Act values = ops.logits(hidden, wanted);
      sink(static_cast<int64_t>(done + at), values->rows, values->values.data());
    }
    done += rows;
  }
  cache_.roll_back({sequence, 0});
  cache_.close(sequence);
}

}  // namespace thimble
