#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention_plan.h"
#include "tensor/dtype.h"

namespace thimble {

// Stored keys and values, [slots, kv_heads * head_dim] each, in f32 or f16.
struct KeyValueView {
  DType type = DType::kF32;
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
  int64_t row_stride = 0;  // elements from slot to slot
};

// Scaled dot-product attention of every query row to the keys that the plan shows it. Scores are never stored: softmax
// runs along the keys (Dao et al. 2022, arXiv 2205.14135). q and out [plan.rows(), heads * head_dim]; lse, where
// wanted, [plan.rows(), heads]: log of the sum of exp of the scaled scores. Query heads that share a key head are
// computed together.
// Keys are taken in blocks that begin at fixed positions, so that a row's result is bit-identical whatever chunks its
// prompt was read in, whatever stands beside it, wherever its keys lie and however many threads there are (at one
// CpuLevel). head_dim up to 256.
void attention_forward(const float* q, const KeyValueView& kv, const AttentionPlan& plan, const AttentionShape& shape,
                       float* out, float* lse);

// Writes count rows of `width` floats to the given slots of a storage of f32 or f16 (rounding to nearest even).
void store_keys(DType type, const float* rows, int64_t count, int64_t width, const int32_t* slots, std::byte* storage);

}  // namespace thimble
