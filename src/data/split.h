#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "data/row.h"

namespace thimble {

struct Split {
  std::vector<size_t> train, dev;  // indices of rows, ascending
};

// Sets a share of the rows aside for choosing checkpoints and settings. Rows are drawn by the seed within strata (the
// first tool that is called; the kind of those that call nothing), so that the parts are alike; requests that are the
// same up to case, punctuation and space stay on one side. At least one row stays in each part where there are two
// different ones and the share is above 0.
Split split_rows(std::span<const Row> rows, double dev_share, uint64_t seed);

}  // namespace thimble
