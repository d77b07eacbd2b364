#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train/pack.h"

namespace thimble {

// Rows that begin alike (system message, tools, examples, earlier turns) are laid out as a tree: what several of them
// begin with is computed once, forward and backward, and attention follows the branches. Only tokens that nothing
// before the first trained one's loss depends on are shared, so every loss keeps a position of its own: sums of losses
// and gradients are those of separate rows.

// Consecutive tokens of one row, shared with all rows below it or of this row alone.
struct TreeSegment {
  int row = 0;  // index into the data, of the first of the rows that share it
  int64_t from = 0, count = 0;
  std::vector<int> ancestors;  // indices of earlier segments, from the root; `from` is the sum of their counts
};

// How many of a row's first tokens may be shared: those whose prediction is not trained.
int64_t sharable_tokens(const TrainRow& row);

// The tree of the chosen rows (indices into `rows`), parents before children. Its result depends on the set of rows
// alone. Beginnings shorter than four tokens are not worth a segment.
std::vector<TreeSegment> prefix_tree(std::span<const TrainRow> rows, std::vector<int> chosen);
int64_t tree_tokens(std::span<const TreeSegment> tree);

// The longest beginning that any two of the rows would share; 0 where none is worth a segment.
int64_t longest_shared(std::span<const TrainRow> rows);

}  // namespace thimble
