#include <queue>
#include <tuple>

#include "text/bpe.h"

namespace thimble {
namespace {

// Short pieces: look for the best pair each time. Beats a heap while everything fits in a few cache lines.
constexpr size_t kShort = 48;

void merge_short(const MergeTable& merges, std::vector<int32_t>& word) {
  uint32_t ranks[kShort];  // of symbols[i] with symbols[i + 1]
  int32_t merged[kShort];
  int32_t* symbols = word.data();
  size_t n = word.size();
  const auto look_up = [&](size_t i) {
    const MergeTable::Merge merge = merges.find(symbols[i], symbols[i + 1]);
    ranks[i] = merge.rank;
    merged[i] = merge.symbol;
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) best = ranks[i] < ranks[best] ? i : best;
    if (ranks[best] == MergeTable::kNone) break;
    symbols[best] = merged[best];
    --n;
    for (size_t i = best + 1; i < n; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best + 1; i + 1 < n; ++i) {
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    if (best + 1 < n) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  word.resize(n);
}

struct Candidate {
  uint32_t rank, at;
  int32_t symbol;
  bool operator>(const Candidate& other) const { return std::tie(rank, at) > std::tie(other.rank, other.at); }
};

// Long pieces: a heap of pairs over a linked list, n log n.
void merge_long(const MergeTable& merges, std::vector<int32_t>& symbols) {
  const auto n = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(n), previous(n);  // n: none
  std::vector<bool> gone(n);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  const auto offer = [&](uint32_t left, uint32_t right) {
    const MergeTable::Merge merge = merges.find(symbols[left], symbols[right]);
    if (merge.rank != MergeTable::kNone) heap.push({merge.rank, left, merge.symbol});
  };
  for (uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i == 0 ? n : i - 1;
    if (i + 1 < n) offer(i, i + 1);
  }
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    if (gone[top.at] || next[top.at] == n) continue;
    const uint32_t right = next[top.at];
    // The pair may have changed since the entry was made.
    if (merges.find(symbols[top.at], symbols[right]).symbol != top.symbol) continue;
    symbols[top.at] = top.symbol;
    gone[right] = true;
    next[top.at] = next[right];
    if (next[right] != n) previous[next[right]] = top.at;
    if (previous[top.at] != n) offer(previous[top.at], top.at);
    if (next[top.at] != n) offer(top.at, next[top.at]);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < n; ++i)
    if (!gone[i]) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

}  // namespace

void merge_symbols(const MergeTable& merges, std::vector<int32_t>& symbols) {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShort) {
    merge_short(merges, symbols);
  } else {
    merge_long(merges, symbols);
  }
}

}  // namespace thimble
