#include "infer/lookup_drafter.h"

#include <algorithm>

namespace thimble {
namespace {

// A pass over the weights costs about as much as computing this many rows with them: the machine's bandwidth against
// its arithmetic, whatever the model's size.
constexpr float kRowsAPass = 5;

constexpr int kDraft[] = {1, 3, 7};  // tokens that a match of 1, 2 and 3 tokens promises
constexpr int kRetry = 24;           // chances after which a length of match is tried again

uint64_t key(std::span<const int32_t> tokens) {
  uint64_t hash = 0;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
  return hash;
}

}  // namespace

bool LookupOdds::pays(int length, int running) {
  Order& order = orders_[static_cast<size_t>(length - 1)];
  const auto share = static_cast<float>(running);
  if (order.right < share / (share + kRowsAPass) && ++order.passed < kRetry) return false;
  order.passed = 0;
  return true;
}

void LookupOdds::learn(int length, int offered, int right) {
  if (length == 0 || offered == 0) return;
  Order& order = orders_[static_cast<size_t>(length - 1)];
  order.right += 0.1f * (static_cast<float>(right) / static_cast<float>(offered) - order.right);
}

void LookupDrafter::push(int32_t token) {
  const auto at = static_cast<int32_t>(text_.size());
  for (int32_t n = 1; n <= std::min<int32_t>(LookupOdds::kLongest, at); ++n)
    next_[static_cast<size_t>(n - 1)][key(std::span(text_).last(static_cast<size_t>(n)))] = at;
  text_.push_back(token);
}

std::vector<int32_t> LookupDrafter::draft(LookupOdds& odds, int running, int most) {
  matched_ = 0;
  const std::span<const int32_t> text(text_);
  for (int n = std::min(LookupOdds::kLongest, static_cast<int>(text.size())); n > 0; --n) {
    const auto length = static_cast<size_t>(n);
    const auto& places = next_[length - 1];
    const auto found = places.find(key(text.last(length)));
    if (found == places.end()) continue;
    const auto at = static_cast<size_t>(found->second);
    if (!std::ranges::equal(text.subspan(at - length, length), text.last(length))) continue;  // equal keys only
    if (!odds.pays(n, running)) return {};
    matched_ = n;
    const auto count = std::min({static_cast<size_t>(kDraft[n - 1]), static_cast<size_t>(std::max(most, 0)),
                                 text.size() - at});
    return {text.begin() + static_cast<std::ptrdiff_t>(at), text.begin() + static_cast<std::ptrdiff_t>(at + count)};
  }
  return {};
}

}  // namespace thimble
