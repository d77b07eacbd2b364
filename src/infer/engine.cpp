#include "infer/engine.h"

#include <fmt/core.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "infer/infer_ops.h"

namespace thimble {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

KvCacheOptions cache_options(const PreparedModel& model, const EngineOptions& options) {
  const ModelConfig& config = model.model().config;
  return {.layers = config.layers,
          .width = config.kv_heads * config.head_dim,
          .capacity = options.cache_tokens,
          .type = model.precision() == MatmulPrecision::kF32 ? DType::kF32 : DType::kF16};
}

// log(sum(exp(logits))) over the allowed tokens; empty: all.
double log_sum_exp(std::span<const float> logits, std::span<const uint32_t> allowed) {
  float best = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < logits.size(); ++i)
    if (permitted(allowed, i)) best = std::max(best, logits[i]);
  if (!std::isfinite(best)) return best;
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i)
    if (permitted(allowed, i)) sum += std::exp(static_cast<double>(logits[i] - best));
  return best + std::log(sum);
}

// Leaves in `allowed` either the tokens that open a call or the others, as the threshold says; gives the probability
// of opening one.
double decide_call(std::span<const float> logits, std::span<uint32_t> allowed, std::span<const uint32_t> openers,
                   std::optional<double> threshold) {
  std::vector<uint32_t> calls(allowed.size());
  for (size_t i = 0; i < allowed.size(); ++i) calls[i] = i < openers.size() ? allowed[i] & openers[i] : 0;
  const double probability = std::exp(log_sum_exp(logits, calls) - log_sum_exp(logits, allowed));
  if (threshold) {
    const bool call = probability >= *threshold;
    for (size_t i = 0; i < allowed.size(); ++i) allowed[i] = call ? calls[i] : allowed[i] & ~calls[i];
  }
  return probability;
}

size_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  size_t n = 0;
  while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
  return n;
}

}  // namespace

struct Engine::Running {
  Id id = 0;
  GenerateRequest request;
  Answer answer;
  KvCache::Sequence sequence = -1;
  std::vector<int32_t> pending;  // known tokens whose keys are not in the cache yet; the last one's logits decide
  int32_t batch_rows = 0;        // how many of them the current step computes
  Sampler sampler;
  std::unique_ptr<Constraint> constraint;
  StreamDecoder decoder;
  std::string unsent;  // text that may yet be the beginning of a stop string
  Clock::time_point start = Clock::now();
  bool cancelled = false;

  Running(Id id, GenerateRequest r, const Tokenizer& tokenizer)
      : id(id), request(std::move(r)), sampler(request.sampling), decoder(tokenizer) {
    if (request.constraint != nullptr) constraint = request.constraint->start();
  }
  bool prefilling() const { return answer.tokens.empty() && !pending.empty(); }
  int64_t room() const { return static_cast<int64_t>(request.prompt.size()) + request.max_tokens; }
};

Engine::Engine(std::shared_ptr<const PreparedModel> model, Tokenizer tokenizer, const EngineOptions& options)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      cache_(cache_options(*model_, options_)) {}

Engine::~Engine() = default;

int64_t Engine::context() const {
  return std::min<int64_t>(model_->model().config.context, options_.cache_tokens);
}

Engine::Id Engine::submit(GenerateRequest request) {
  if (request.prompt.empty()) throw Error("the prompt is empty; give at least one token");
  const auto size = static_cast<int64_t>(request.prompt.size());
  if (size >= context())
    throw Error(fmt::format("the prompt has {} tokens, but at most {} fit (model context {}, cache {}); shorten it or "
                            "give a larger context",
                            size, context() - 1, model_->model().config.context, options_.cache_tokens));
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= model_->model().config.vocab)
      throw Error(fmt::format("the prompt holds token {}, but the model's vocabulary ends at {}", token,
                              model_->model().config.vocab - 1));
  check(request.sampling);
  request.max_tokens = static_cast<int>(std::min<int64_t>(request.max_tokens, context() - size));
  auto waiting = std::make_unique<Running>(next_id_, std::move(request), tokenizer_);
  waiting->answer.prompt_tokens = static_cast<int>(size);
  waiting_.push_back(std::move(waiting));
  return next_id_++;
}

void Engine::cancel(Id id) {
  for (auto* list : {&running_})
    for (auto& r : *list)
      if (r->id == id) r->cancelled = true;
  for (auto& r : waiting_)
    if (r->id == id) r->cancelled = true;
}

std::optional<Answer> Engine::take(Id id) {
  const auto found = finished_.find(id);
  if (found == finished_.end()) return std::nullopt;
  Answer answer = std::move(found->second);
  finished_.erase(found);
  return answer;
}

void Engine::finish(Running& r, FinishReason reason) {
  r.answer.finish = reason;
  r.answer.seconds = since(r.start);
  if (r.sequence >= 0) cache_.close(r.sequence);
  r.sequence = -1;
  finished_.emplace(r.id, std::move(r.answer));
}

// Moves the next waiting request into the batch; false where it has to wait.
bool Engine::admit(int64_t& budget) {
  if (waiting_.empty() || budget <= 0 || static_cast<int>(running_.size()) >= options_.max_batch) return false;
  Running& next = *waiting_.front();
  if (next.cancelled) {
    finish(next, FinishReason::kCancelled);
    waiting_.pop_front();
    return true;
  }
  int64_t promised = next.room();
  for (const auto& r : running_) promised += r->room();
  if (promised > cache_.capacity() && !running_.empty()) return false;
  // A prompt that begins like one that is being read now waits for it, and finds its keys in the cache.
  for (const auto& r : running_) {
    if (!r->prefilling() || r->request.adapter != next.request.adapter) continue;
    const auto read = static_cast<size_t>(cache_.length(r->sequence));
    if (common_prefix(r->request.prompt, next.request.prompt) > read + 16) return false;
  }
  next.sequence = cache_.open(next.request.adapter, next.request.prompt);
  const int32_t known = cache_.length(next.sequence);
  next.answer.cached_tokens = known;
  next.pending.assign(next.request.prompt.begin() + known, next.request.prompt.end());
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();

  Running& r = *running_.back();
  r.batch_rows = static_cast<int32_t>(std::min<int64_t>(budget, static_cast<int64_t>(r.pending.size())));
  budget -= r.batch_rows;
  if (!cache_.append(r.sequence, std::span(r.pending).first(static_cast<size_t>(r.batch_rows)))) r.batch_rows = 0;
  return true;
}

bool Engine::step() {
  for (auto& r : running_)
    if (r->cancelled) finish(*r, FinishReason::kCancelled);
  std::erase_if(running_, [](const auto& r) { return r->sequence < 0; });

  // Running answers come first, one row each; what is left of the chunk reads prompts.
  int64_t budget = options_.chunk;
  for (auto& r : running_) r->batch_rows = 0;
  for (const bool decoding : {true, false}) {
    for (auto& r : running_) {
      if (r->prefilling() == decoding || budget <= 0) continue;
      const auto rows = static_cast<int32_t>(std::min<int64_t>(budget, static_cast<int64_t>(r->pending.size())));
      if (!cache_.append(r->sequence, std::span(r->pending).first(static_cast<size_t>(rows)))) continue;
      r->batch_rows = rows;
      budget -= rows;
    }
  }
  while (admit(budget)) {
  }
  if (running_.empty()) return !waiting_.empty();

  InferBatch batch;
  std::vector<int32_t> wanted;  // rows whose logits decide the next token
  std::vector<Running*> deciding;
  for (auto& r : running_) {
    if (r->batch_rows == 0) continue;
    const auto first = static_cast<int32_t>(batch.tokens.size());
    batch.tokens.insert(batch.tokens.end(), r->pending.begin(), r->pending.begin() + r->batch_rows);
    batch.adapters.insert(batch.adapters.end(), static_cast<size_t>(r->batch_rows), r->request.adapter);
    cache_.plan(r->sequence, r->batch_rows, first, batch.plan.segments);
    cache_.slots(r->sequence, r->batch_rows, batch.slots);
    r->pending.erase(r->pending.begin(), r->pending.begin() + r->batch_rows);
    if (r->pending.empty()) {
      wanted.push_back(first + r->batch_rows - 1);
      deciding.push_back(r.get());
    }
  }
  assert(!batch.tokens.empty());

  InferOps ops(*model_, cache_, batch, pool_);
  const Act hidden = model_->model().forward(ops);
  if (!wanted.empty()) {
    const Act logits = ops.logits(hidden, wanted);
    for (size_t i = 0; i < deciding.size(); ++i)
      consume(*deciding[i], {logits->row(static_cast<int64_t>(i)), static_cast<size_t>(logits->cols)});
  }
  std::erase_if(running_, [](const auto& r) { return r->sequence < 0; });
  return !running_.empty() || !waiting_.empty();
}

void Engine::consume(Running& r, std::span<const float> logits) {
  Answer& answer = r.answer;
  std::vector<uint32_t> allowed;
  if (r.constraint) {
    allowed.assign((logits.size() + 31) / 32, 0);
    r.constraint->mask(allowed);
    if (const auto openers = r.constraint->call_openers(); answer.tokens.empty() && !openers.empty())
      answer.call_probability = decide_call(logits, allowed, openers, r.request.call_threshold);
  }
  const int32_t token = r.sampler.sample(logits, allowed);
  if (r.request.log_probs)
    answer.log_probs.push_back(
        static_cast<float>(logits[static_cast<size_t>(token)] - log_sum_exp(logits, allowed)));
  if (answer.tokens.empty()) answer.first_token_s = since(r.start);

  const bool end = !r.request.ignore_end && tokenizer_.ends_answer(token);
  std::string text;
  if (!end) {
    answer.tokens.push_back(token);
    if (r.constraint) r.constraint->accept(token);
    text = r.decoder.push(token);
  }
  const bool full = static_cast<int>(answer.tokens.size()) >= r.request.max_tokens;
  if (end || full) text += r.decoder.flush();
  r.unsent += text;

  // A stop string ends the answer before itself; text that may be the beginning of one is held back.
  size_t cut = std::string::npos;
  for (const std::string& stop : r.request.stop)
    if (!stop.empty()) cut = std::min(cut, r.unsent.find(stop));
  size_t sure = r.unsent.size();
  if (cut != std::string::npos) {
    sure = cut;
  } else if (!end && !full) {
    for (const std::string& stop : r.request.stop)
      for (size_t n = std::min(stop.size(), r.unsent.size()); n > 0; --n)
        if (r.unsent.ends_with(std::string_view(stop).substr(0, n))) {
          sure = std::min(sure, r.unsent.size() - n);
          break;
        }
  }
  bool wanted = true;
  if (sure > 0) {
    answer.text.append(r.unsent, 0, sure);
    if (r.request.on_text) wanted = r.request.on_text(std::string_view(r.unsent).substr(0, sure));
    r.unsent.erase(0, sure);
  }
  if (!wanted) return finish(r, FinishReason::kCancelled);
  if (end || cut != std::string::npos) return finish(r, FinishReason::kStop);
  if (full) return finish(r, FinishReason::kLength);
  r.pending.push_back(token);
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
                    const std::function<void(int64_t, int64_t, const float*)>& sink) {
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
    batch.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(done),
                        tokens.begin() + static_cast<std::ptrdiff_t>(done + rows));
    batch.adapters.assign(rows, adapter);
    cache_.plan(sequence, static_cast<int32_t>(rows), 0, batch.plan.segments);
    cache_.slots(sequence, static_cast<int32_t>(rows), batch.slots);
    InferOps ops(*model_, cache_, batch, pool_);
    const Act hidden = model_->model().forward(ops);
    constexpr size_t kSlice = 64;
    for (size_t at = 0; at < rows; at += kSlice) {
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
