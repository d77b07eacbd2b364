#include "infer/answering.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/logits.h"

namespace thimble {
namespace {

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

}  // namespace

Answering::Answering(GenerateRequest request, const Tokenizer& tokenizer, int vocab)
    : request_(std::move(request)),
      tokenizer_(tokenizer),
      words_((static_cast<size_t>(std::max(vocab, tokenizer.vocab_size())) + 31) / 32),
      sampler_(request_.sampling, {tokenizer, request_.sampling.dry_breakers}),
      decoder_(tokenizer) {
  sampler_.prime(request_.prompt);
  answer_.prompt_tokens = static_cast<int>(request_.prompt.size());
  known_.assign(request_.prompt.begin(), request_.prompt.end());
}

void Answering::begin() {
  if (request_.constraint == nullptr) return;
  constraint_ = request_.constraint->start();
  take_forced();
}

// Asks the constraint for all that may come next; gives how many tokens.
int Answering::make_mask() {
  allowed_.assign(words_, 0);
  constraint_->mask(allowed_);
  masked_ = true;
  ++answer_.masks;
  int count = 0;
  for (const uint32_t word : allowed_) count += std::popcount(word);
  return count;
}

// Text as the tokenizer writes it in the middle of a text; empty where it has no tokens that write exactly this.
std::vector<int32_t> Answering::canonical(const std::string& text) const {
  // SentencePiece-like vocabularies put a space before a text's beginning: there a line end stands in front, and goes.
  for (const std::string_view front : {"", "\n"}) {
    std::string whole(front);
    whole += text;
    std::vector<int32_t> tokens = tokenizer_.encode(whole);
    std::string bytes;
    while (!tokens.empty()) {
      bytes.clear();
      for (const int32_t token : tokens) bytes += tokenizer_.token_bytes(token);
      if (bytes.size() <= text.size()) break;
      tokens.erase(tokens.begin());
    }
    if (bytes == text) return tokens;
  }
  return {};
}

void Answering::take_forced() {
  while (!finished_) {
    masked_ = false;
    forced_end_ = -1;
    if (constraint_->finished()) return finish(FinishReason::kStop);  // and the end token was ignored
    const std::string text = constraint_->forced();
    // Elsewhere there is a choice, or as good as ever, and the mask may never be needed (Sampler::sample).
    if (text.empty() && !constraint_->may_stop()) return;
    const int count = make_mask();
    if (count == 0) return finish(FinishReason::kStop);
    if (count == 1) {
      for (size_t i = 0; i < allowed_.size(); ++i)
        if (allowed_[i] != 0) {
          say_forced(static_cast<int32_t>(32 * i) + std::countr_zero(allowed_[i]));
          break;
        }
      continue;
    }
    // The last token is left to the model: what comes after the forced text may belong to it.
    const std::vector<int32_t> tokens = canonical(text);
    for (size_t i = 0; i + 1 < tokens.size() && !finished_; ++i) say_forced(tokens[i]);
    if (tokens.size() >= 2) continue;
    if (!tokens.empty()) forced_end_ = tokens.front();
    return;
  }
}

void Answering::say_forced(int32_t token) {
  note({.chosen = 0, .top = {{token, 0}}});  // certain
  ++answer_.forced_tokens;
  say(token);
}

void Answering::note(LogProbs known) {
  if (request_.log_probs || request_.top_log_probs > 0) answer_.log_probs.push_back(known.chosen);
  if (request_.top_log_probs > 0) answer_.top_log_probs.push_back(std::move(known.top));
}

// -1 where the vocabulary can't write what the constraint asks for.
int32_t Answering::choose(std::span<const float> logits) {
  if (!constraint_) {
    allowed_.clear();
  } else if (const auto openers = constraint_->call_openers(); answer_.tokens.empty() && !openers.empty()) {
    if (!masked_) make_mask();
    answer_.call_probability = decide_call(logits, allowed_, openers, request_.call_threshold);
  } else if (!masked_) {  // and the answer can't end here
    return sampler_.sample(
        logits, [this](int32_t token) { return constraint_->allows(token); },
        [this] {
          make_mask();
          return std::span<const uint32_t>(allowed_);
        });
  }
  if (static_cast<int>(answer_.tokens.size()) < request_.min_tokens)
    forbid(allowed_, logits.size(), tokenizer_.end_ids());
  return sampler_.sample(logits, allowed_);
}

void Answering::decide(std::span<const float> logits) {
  const int32_t token = choose(logits);
  if (token < 0) return finish(FinishReason::kStop);
  if (request_.log_probs || request_.top_log_probs > 0) {
    if (constraint_ && !masked_) make_mask();
    note(log_probs(logits, allowed_, token, request_.top_log_probs));
  }
  say(token);
  if (constraint_ && !finished_) take_forced();
}

void Answering::say(int32_t token) {
  if (!started()) answer_.first_token_s = seconds_since(start_);
  if (!request_.ignore_end && tokenizer_.ends_answer(token)) {
    answer_.end_token = token;
    send(decoder_.flush(), true);
    return finish(FinishReason::kStop);
  }
  answer_.tokens.push_back(token);
  sampler_.accept(token);
  if (drafter_) drafter_->push(token);
  if (constraint_) constraint_->accept(token);
  std::string text = decoder_.push(token);
  const bool full = static_cast<int>(answer_.tokens.size()) >= request_.max_tokens;
  if (full) text += decoder_.flush();
  send(std::move(text), full);
  if (full) return finish(FinishReason::kLength);
  known_.push_back(token);
}

// A stop string ends the answer before itself; text that may be the beginning of one is held back.
void Answering::send(std::string text, bool last) {
  unsent_ += text;
  size_t cut = std::string::npos;
  for (const std::string& stop : request_.stop)
    if (!stop.empty()) cut = std::min(cut, unsent_.find(stop));
  size_t sure = unsent_.size();
  if (cut != std::string::npos) {
    sure = cut;
  } else if (!last) {
    for (const std::string& stop : request_.stop)
      for (size_t n = std::min(stop.size(), unsent_.size()); n > 0; --n)
        if (unsent_.ends_with(std::string_view(stop).substr(0, n))) {
          sure = std::min(sure, unsent_.size() - n);
          break;
        }
  }
  bool wanted = true;
  if (sure > 0) {
    answer_.text.append(unsent_, 0, sure);
    if (request_.on_text) wanted = request_.on_text(std::string_view(unsent_).substr(0, sure), answer_);
    unsent_.erase(0, sure);
  }
  if (!wanted) return finish(FinishReason::kCancelled);
  if (cut != std::string::npos) finish(FinishReason::kStop);
}

// The first reason stands.
void Answering::finish(FinishReason reason) {
  if (finished_) return;
  finished_ = true;
  answer_.finish = reason;
  answer_.seconds = seconds_since(start_);
}

Answering::Guess Answering::look_up(SpeculationOdds& odds, int running) {
  if (!drafter_) drafter_.emplace(text());
  std::vector<int32_t> tokens = possible(drafter_->draft(odds, running, static_cast<int>(left()) - 1));
  if (forced_end_ >= 0 && (tokens.empty() || tokens.front() != forced_end_))
    if (Guess end = go_on(odds, running); !end.tokens.empty()) return end;
  return {std::move(tokens), drafter_->matched()};
}

Answering::Guess Answering::go_on(SpeculationOdds& odds, int running) {
  if (forced_end_ < 0 || !odds.pays(SpeculationOdds::kForcedText, running)) return {};
  return {possible({forced_end_}), SpeculationOdds::kForcedText};
}

std::vector<int32_t> Answering::text() const {
  std::vector<int32_t> out = request_.prompt;
  out.insert(out.end(), answer_.tokens.begin(), answer_.tokens.end());
  return out;
}

std::vector<int32_t> Answering::possible(std::vector<int32_t> tokens) {
  const int64_t most = std::max<int64_t>(left() - 1, 0);
  if (static_cast<int64_t>(tokens.size()) > most) tokens.resize(static_cast<size_t>(most));
  if (!constraint_) return tokens;
  size_t taken = 0;
  while (taken < tokens.size() && constraint_->accept(tokens[taken])) ++taken;
  constraint_->rollback(static_cast<int>(taken));
  tokens.resize(taken);
  return tokens;
}

void Answering::count_guess(int offered, int right) {
  answer_.drafted_tokens += offered;
  answer_.accepted_tokens += right;
}

}  // namespace thimble
