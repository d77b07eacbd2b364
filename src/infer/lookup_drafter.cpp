#include "infer/lookup_drafter.h"

#include <algorithm>

namespace thimble {
namespace {

constexpr int kDraft[] = {1, 3, 7};  // tokens that a match of 1, 2 and 3 tokens promises

uint64_t key(std::span<const int32_t> tokens) {
  uint64_t hash = 0;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
  return hash;
}

}  // namespace

void LookupDrafter::push(int32_t token) {
  const auto at = static_cast<int32_t>(text_.size());
  for (int32_t n = 1; n <= std::min<int32_t>(SpeculationOdds::kLongestMatch, at); ++n)
    next_[static_cast<size_t>(n - 1)][key(std::span(text_).last(static_cast<size_t>(n)))] = at;
  text_.push_back(token);
}

std::vector<int32_t> LookupDrafter::draft(SpeculationOdds& odds, int running, int most) {
  matched_ = 0;
  const std::span<const int32_t> text(text_);
  for (int n = std::min(SpeculationOdds::kLongestMatch, static_cast<int>(text.size())); n > 0; --n) {
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
