#pragma once

#include <cstdint>

#include "kernels/attention.h"

namespace thimble::attention {

// A block of keys and values of one head, unpacked for the kernel.
inline constexpr int kKeys = 64;      // positions a block
inline constexpr int kMaxHead = 256;  // head_dim
inline constexpr int kSpan = 4;       // blocks that are summed up on their own, see attention.cpp

// Unpacks the `count` (<= kKeys) slots' rows; `column` is where the head begins in a row. keys [head_dim][kKeys] and
// values [count][stride], stride a multiple of 16; what lies past count and past head_dim is zero.
void unpack_block(const KeyValueView& kv, const int32_t* slots, int count, int64_t column, int head_dim, int stride,
                  float* keys, float* values);

// Asks for the same rows ahead of their use: a head's part of a row is too short for the processor to see a pattern.
void prefetch_block(const KeyValueView& kv, const int32_t* slots, int count, int64_t column, int head_dim);

// One step of softmax along the keys: rows of scores [rows][kKeys] become exp(score - top), where top [rows] rises to
// the largest score so far, and total [rows][16] adds them up lane by lane. Keys outside [first, last) of a row, both
// in [0, kKeys], are not seen: they become 0. scale [rows] is what earlier sums must be multiplied by.
void soften(float* scores, int rows, const int* first, const int* last, float* top, float* total, float* scale);

}  // namespace thimble::attention
