#include "infer/lookup_drafter.h"

#include <algorithm>

namespace thimble {
namespace {

// A pass over the weights costs about as much as computing this many rows with them: the machine's bandwidth against
// its arithmetic, whatever the model's size.
constexpr float kRowsAPass = 5;

constexpr int kDraft[] = {2, 3, 7};  // tokens that a match of 1, 2 and 3 tokens promises
constexpr int kRetry = 24;           // chances after which a length of match is tried again

uint64_t key(std::span<const int32_t> tokens) {
  uint64_t hash = 0;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
  return hash;
}

}  // namespace

void LookupDrafter::push(int32_t token) {
  const auto at = static_cast<int32_t>(text_.size());
  for (int32_t n = 1; n <= std::min<int32_t>(kLongest, at); ++n)
    next_[static_cast<size_t>(n - 1)][key(std::span(text_).last(static_cast<size_t>(n)))] = at;
  text_.push_back(token);
}

std::vector<int32_t> LookupDrafter::draft(int running, int most) {
  drafted_by_ = 0;
  const std::span<const int32_t> text(text_);
  for (int n = std::min<int>(kLongest, static_cast<int>(text.size())); n > 0; --n) {
    const auto length = static_cast<size_t>(n);
    const auto& places = next_[length - 1];
    const auto found = places.find(key(text.last(length)));
    if (found == places.end()) continue;
    const auto at = static_cast<size_t>(found->second);
    if (!std::ranges::equal(text.subspan(at - length, length), text.last(length))) continue;  // equal keys only
    Order& order = orders_[length - 1];
    const auto share = static_cast<float>(running);
    if (order.right < share / (share + kRowsAPass) && ++order.passed < kRetry) return {};
    order.passed = 0;
    drafted_by_ = n;
    const auto count = std::min({static_cast<size_t>(kDraft[n - 1]), static_cast<size_t>(std::max(most, 0)),
                                 text.size() - at});
    return {text.begin() + static_cast<std::ptrdiff_t>(at), text.begin() + static_cast<std::ptrdiff_t>(at + count)};
  }
  return {};
}

void LookupDrafter::learn(int offered, int accepted) {
  if (drafted_by_ == 0 || offered == 0) return;
  Order& order = orders_[static_cast<size_t>(drafted_by_ - 1)];
  order.right += 0.25f * (static_cast<float>(accepted) / static_cast<float>(offered) - order.right);
  drafted_by_ = 0;
}

}  // namespace thimble
