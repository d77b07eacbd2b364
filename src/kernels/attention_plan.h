#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace thimble {

// Consecutive rows of the key and value storage; consecutive in position too.
struct KeyRange {
  int32_t first = 0;
  int32_t count = 0;
};

// Consecutive query rows that share a past. A query row attends to all keys of the ancestors, then to the keys of
// its own segment up to and including itself.
struct AttentionSegment {
  int32_t query_first = 0;          // first row in q and out
  int32_t query_count = 0;
  int32_t key_first = 0;            // where the segment's own keys begin in the storage; query_count of them
  int32_t position = 0;             // of its first row: the sum of the ancestors' counts
  std::vector<KeyRange> ancestors;  // earliest first
};

// Who attends to whom. Packed rows (no ancestors), prompt chunks (one ancestor: what was read before), prefix
// trees (ancestors along the branch) and sliding windows are all this one plan.
struct AttentionPlan {
  std::vector<AttentionSegment> segments;  // in order of query_first, covering every row once
  int32_t window = 0;                      // > 0: keys at positions <= query position - window are not seen

  int64_t rows() const {
    return segments.empty() ? 0 : segments.back().query_first + segments.back().query_count;
  }
  std::vector<int32_t> positions() const {  // of every query row
    std::vector<int32_t> out(static_cast<size_t>(rows()));
    for (const auto& s : segments)
      for (int32_t i = 0; i < s.query_count; ++i) out[static_cast<size_t>(s.query_first + i)] = s.position + i;
    return out;
  }
};

// heads query heads share kv_heads key heads in groups of heads / kv_heads.
struct AttentionShape {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;  // of the scores, usually 1 / sqrt(head_dim)
};

}  // namespace thimble
