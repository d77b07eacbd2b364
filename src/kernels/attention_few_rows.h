#pragma once

#include "kernels/attention_block.h"

// One token's queries of a head read every key once: unpacking a block to f32 in memory would cost more than using it.
// These multiply with elements that are widened in registers. A row's sums are those of unpacked blocks to the bit, one
// chain in order of the elements or of the keys, so that it may be computed either way.
namespace thimble::attention {

inline constexpr int kFewRows = 8;  // above this, unpacking costs less than widening for every four rows
bool has_few_rows();                // at this CpuLevel

// Where the storage's block lies that is used next, as something to ask for ahead; null: unknown.
struct NextBlock {
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
};

// scores [rows][kKeys] = q [rows][head_dim] · keys, without scales; zeros past slots.count. There must be 16 floats of
// room in front of scores.
void few_scores(const KeyValueCache& kv, const BlockSlots& slots, const NextBlock& next, int kv_head, const float* q,
                int rows, float* scores);

// sum [rows][padded] = scale[r] * sum + weights [rows][kKeys] · values of the first `depth` keys.
void few_values(const KeyValueCache& kv, const BlockSlots& slots, const NextBlock& next, int kv_head,
                const float* weights, int depth, const float* scale, int rows, float* sum);

}  // namespace thimble::attention
