#include "kernels/attention_tiles.h"

#include <algorithm>
#include <bit>
#include <map>

namespace thimble {
namespace {

using Tile = AttentionTiles::Tile;
using SeenKeys = std::array<uint64_t, AttentionTiles::kQueries>;  // [query]: a bit a key

uint64_t bits_below(int64_t n) { return n >= 64 ? ~uint64_t{0} : n <= 0 ? 0 : (uint64_t{1} << n) - 1; }

// Storage rows, cut where a segment's keys begin or end, in even numbers as near to each other as they can be.
std::vector<KeyRange> cut_keys(const AttentionPlan& plan, int64_t key_rows) {
  std::vector<int32_t> cuts = {0, static_cast<int32_t>(key_rows)};
  for (const AttentionSegment& s : plan.segments) {
    cuts.push_back(s.key_first);
    cuts.push_back(s.key_first + s.query_count);
  }
  std::sort(cuts.begin(), cuts.end());
  std::vector<KeyRange> blocks;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const int32_t first = cuts[i], count = cuts[i + 1] - first, pairs = (count + 1) / 2;
    const int32_t pieces = (count + AttentionTiles::kKeys - 1) / AttentionTiles::kKeys;
    for (int32_t p = 0, at = 0; p < pieces; ++p) {
      const int32_t size = std::min(count - at, 2 * (pairs / pieces + (p < pairs % pieces ? 1 : 0)));
      blocks.push_back({first + at, size});
      at += size;
    }
  }
  return blocks;
}

// What the queries of one block see, by key block.
using BlockSeen = std::map<int32_t, SeenKeys>;

// Adds the keys [range.first, range.first + range.count), of which the first has `position`, for all queries of s.
void add_range(const AttentionTiles& tiles, const AttentionPlan& plan, const AttentionSegment& s, KeyRange range,
               int64_t position, std::vector<BlockSeen>& seen) {
  auto block = std::upper_bound(tiles.key_blocks.begin(), tiles.key_blocks.end(), range.first,
                                [](int32_t row, const KeyRange& b) { return row < b.first + b.count; });
  for (; block != tiles.key_blocks.end() && block->first < range.first + range.count; ++block) {
    const int64_t from = std::max(range.first, block->first) - block->first;
    const int64_t to = std::min(range.first + range.count, block->first + block->count) - block->first;
    const int64_t block_position = position + block->first - range.first;
    const auto index = static_cast<int32_t>(block - tiles.key_blocks.begin());
    SeenKeys* keys = nullptr;  // of the query block that row i is in
    for (int32_t i = 0; i < s.query_count; ++i) {
      const int64_t row = s.query_first + i;
      if (row % AttentionTiles::kQueries == 0) keys = nullptr;
      const int64_t at = s.position + i - block_position;  // the query itself, among the block's keys
      const int64_t low = plan.window > 0 ? std::max(from, at - plan.window + 1) : from, high = std::min(to, at + 1);
      if (low >= high) continue;
      if (keys == nullptr) keys = &seen[static_cast<size_t>(row / AttentionTiles::kQueries)][index];
      (*keys)[static_cast<size_t>(row % AttentionTiles::kQueries)] |= bits_below(high) & ~bits_below(low);
    }
  }
}

// Bit q of out[k] = bit k of seen[q].
AttentionTiles::Masks by_key(const SeenKeys& seen) {
  AttentionTiles::Masks out{};
  for (size_t q = 0; q < seen.size(); ++q)
    for (uint64_t bits = seen[q]; bits != 0; bits &= bits - 1)
      out[static_cast<size_t>(std::countr_zero(bits))] |= uint64_t{1} << q;
  return out;
}

}  // namespace

AttentionTiles::AttentionTiles(const AttentionPlan& plan, int64_t rows_of_keys)
    : query_rows(plan.rows()),
      key_rows(rows_of_keys),
      query_blocks(static_cast<int32_t>((plan.rows() + kQueries - 1) / kQueries)),
      key_blocks(cut_keys(plan, rows_of_keys)) {
  std::vector<BlockSeen> seen(static_cast<size_t>(query_blocks));
  for (const AttentionSegment& s : plan.segments) {
    int64_t position = 0;
    for (const KeyRange& ancestor : s.ancestors) {
      add_range(*this, plan, s, ancestor, position, seen);
      position += ancestor.count;
    }
    add_range(*this, plan, s, {s.key_first, s.query_count}, position, seen);
  }
  for (int32_t block = 0; block < query_blocks; ++block) {
    first_tile.push_back(static_cast<int32_t>(tiles.size()));
    for (const auto& [key_block, keys] : seen[static_cast<size_t>(block)]) {
      Tile tile{block, key_block, -1, {}, {}};
      bool whole = true;
      for (int half = 0; half < 2; ++half) {
        uint64_t any = 0, all = ~uint64_t{0};
        for (int q = half * kHalf; q < (half + 1) * kHalf; ++q) {
          any |= keys[static_cast<size_t>(q)];
          all &= keys[static_cast<size_t>(q)];
        }
        if (any == 0) continue;
        tile.key_first[half] = static_cast<uint8_t>(std::countr_zero(any) / 2 * 2);
        tile.key_last[half] = static_cast<uint8_t>((64 - std::countl_zero(any) + 1) / 2 * 2);
        whole = whole && all == (bits_below(tile.key_last[half]) & ~bits_below(tile.key_first[half]));
      }
      if (!whole) {
        tile.masks = static_cast<int32_t>(masks.size());
        masks.push_back(by_key(keys));
      }
      tiles.push_back(tile);
    }
  }
  first_tile.push_back(static_cast<int32_t>(tiles.size()));
}

}  // namespace thimble
