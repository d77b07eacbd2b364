#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>

#include "kernels/attention_plan.h"
#include "kernels/kv_layout.h"

namespace thimble {

// Keys and values as a forward pass made them, [rows, kv_heads * head_dim]: a plan's slots are rows.
struct KeyValueRows {
  const float* keys = nullptr;
  const float* values = nullptr;
  int64_t stride = 0;  // from row to row
};

// Keys and values that are kept, as kernels/kv_store.h writes them.
struct KeyValueCache {
  KvLayout layout;
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
};

using KeyValueView = std::variant<KeyValueRows, KeyValueCache>;

// Scaled dot-product attention of every query row to the keys that the plan shows it. Scores are never stored: softmax
// runs along the keys (Dao et al. 2022, arXiv 2205.14135). q and out [plan.rows(), heads * head_dim]; lse, where
// wanted, [plan.rows(), heads]: log of the sum of exp of the scaled scores. Query heads that share a key head are
// computed together.
// Keys are taken in blocks that begin at fixed positions, so that a row's result is bit-identical whatever chunks its
// prompt was read in, whatever stands beside it, wherever its keys lie and however many threads there are (at one
// CpuLevel). head_dim up to 256.
void attention_forward(const float* q, const KeyValueView& kv, const AttentionPlan& plan, const AttentionShape& shape,
                       float* out, float* lse);

}  // namespace thimble
