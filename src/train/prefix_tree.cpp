#include "train/prefix_tree.h"

#include <algorithm>
#include <numeric>

namespace thimble {
namespace {

constexpr int64_t kLeastShared = 4;

int64_t shared_tokens(const TrainRow& a, const TrainRow& b) {
  const int64_t most = std::min(sharable_tokens(a), sharable_tokens(b));
  return std::mismatch(a.tokens.begin(), a.tokens.begin() + most, b.tokens.begin()).first - a.tokens.begin();
}

bool before(const TrainRow& a, const TrainRow& b) { return a.tokens < b.tokens; }

class Builder {
 public:
  Builder(std::span<const TrainRow> rows, std::vector<int> chosen) : rows_(rows), chosen_(std::move(chosen)) {
    // In the order of their tokens rows that begin alike stand together.
    std::sort(chosen_.begin(), chosen_.end(),
              [&](int a, int b) { return before(row(a), row(b)) || (!before(row(b), row(a)) && a < b); });
  }

  std::vector<TreeSegment> build() {
    branch(0, chosen_.size(), 0);
    return std::move(tree_);
  }

 private:
  const TrainRow& row(int index) const { return rows_[static_cast<size_t>(index)]; }

  // The rows [first, last) are alike up to `depth`, which `path_` holds.
  void branch(size_t first, size_t last, int64_t depth) {
    if (last - first == 1) return leaf(first, depth);
    int64_t alike = shared(first, first + 1);
    for (size_t i = first + 2; i < last; ++i) alike = std::min(alike, shared(first, i));
    if (alike - depth >= kLeastShared) {
      path_.push_back(push(chosen_[first], depth, alike - depth));
      branch(first, last, alike);
      path_.pop_back();
      return;
    }
    // Runs that go on alike with their first row are branches of their own; none of them is all rows.
    for (size_t i = first; i < last;) {
      size_t end = i + 1;
      while (end < last && shared(i, end) - depth >= kLeastShared) ++end;
      branch(i, end, depth);
      i = end;
    }
  }

  void leaf(size_t i, int64_t depth) {
    const int64_t count = computed_tokens(row(chosen_[i])) - depth;
    if (count > 0) push(chosen_[i], depth, count);
  }

  int push(int row, int64_t from, int64_t count) {
    tree_.push_back({row, from, count, path_});
    return static_cast<int>(tree_.size()) - 1;
  }

  int64_t shared(size_t i, size_t j) const { return shared_tokens(row(chosen_[i]), row(chosen_[j])); }

  std::span<const TrainRow> rows_;
  std::vector<int> chosen_;
  std::vector<int> path_;
  std::vector<TreeSegment> tree_;
};

}  // namespace

int64_t sharable_tokens(const TrainRow& row) {
  const auto first = std::find(row.trained.begin() + (row.trained.empty() ? 0 : 1), row.trained.end(), 1);
  return std::max<int64_t>(0, first - row.trained.begin() - 1);
}

std::vector<TreeSegment> prefix_tree(std::span<const TrainRow> rows, std::vector<int> chosen) {
  return chosen.empty() ? std::vector<TreeSegment>{} : Builder(rows, std::move(chosen)).build();
}

int64_t tree_tokens(std::span<const TreeSegment> tree) {
  return std::accumulate(tree.begin(), tree.end(), int64_t{0},
                         [](int64_t sum, const TreeSegment& s) { return sum + s.count; });
}

int64_t longest_shared(std::span<const TrainRow> rows) {
  std::vector<const TrainRow*> order;
  for (const TrainRow& row : rows) order.push_back(&row);
  std::sort(order.begin(), order.end(), [](const TrainRow* a, const TrainRow* b) { return before(*a, *b); });
  int64_t longest = 0;
  for (size_t i = 1; i < order.size(); ++i) longest = std::max(longest, shared_tokens(*order[i - 1], *order[i]));
  return longest < kLeastShared ? 0 : longest;
}

}  // namespace thimble
