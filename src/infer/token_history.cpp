#include "infer/token_history.h"

#include <cassert>

namespace thimble {
namespace {

void remove(TokenHistory::Counts& counts, int32_t token) {
  const auto found = counts.find(token);
  assert(found != counts.end());
  if (--found->second == 0) counts.erase(found);
}

}  // namespace

void TokenHistory::enter(int32_t token) {
  tokens_.push_back(token);
  ++recent_[token];
  if (window_ > 0 && tokens_.size() > window_) remove(recent_, tokens_[tokens_.size() - 1 - window_]);
}

void TokenHistory::prime(std::span<const int32_t> prompt) {
  tokens_.clear();
  recent_.clear();
  answer_.clear();
  for (const int32_t token : prompt) enter(token);
  prompt_ = prompt.size();
}

void TokenHistory::accept(int32_t token) {
  enter(token);
  ++answer_[token];
}

void TokenHistory::take_back(size_t count) {
  assert(count <= tokens_.size() - prompt_);
  for (; count > 0; --count) {
    const int32_t token = tokens_.back();
    tokens_.pop_back();
    remove(answer_, token);
    remove(recent_, token);
    if (window_ > 0 && tokens_.size() >= window_) ++recent_[tokens_[tokens_.size() - window_]];
  }
}

}  // namespace thimble
