#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/attention_plan.h"

namespace thimble {

// A plan cut into tiles of 64 query rows and at most 64 keys, for kernels that keep no order of positions. Queries are
// cut in the order of their rows, across segments, so that many short branches fill the tiles over the prefix that they
// share; keys are cut at segments' ends, so that a row's sums don't depend on what is packed beside it.
struct AttentionTiles {
  static constexpr int kQueries = 64;
  static constexpr int kHalf = 32;  // queries: a half of a tile has its own range of keys
  static constexpr int kKeys = 64;

  struct Tile {
    int32_t query_block = 0;
    int32_t key_block = 0;
    int32_t masks = -1;         // among `masks`; -1: every query sees every key of the ranges below
    uint8_t key_first[2] = {};  // of the block, even; for the first 32 queries and for the others
    uint8_t key_last[2] = {};   // even, may be one past the block's keys; 0 where none is seen
  };
  using Masks = std::array<uint64_t, kKeys>;  // [key]: a bit a query

  AttentionTiles(const AttentionPlan& plan, int64_t key_rows);

  int64_t query_rows = 0;
  int64_t key_rows = 0;
  int32_t query_blocks = 0;
  std::vector<KeyRange> key_blocks;  // rows of the storage, all of them
  std::vector<Tile> tiles;           // by query block, then by key block
  std::vector<int32_t> first_tile;   // [query_blocks + 1]
  std::vector<Masks> masks;
};

}  // namespace thimble
