#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention.h"

namespace thimble::attention {

// A block of keys and values of one head, unpacked for the kernel.
inline constexpr int kKeys = 64;      // positions a block
inline constexpr int kMaxHead = 256;  // head_dim
inline constexpr int kSpan = 4;       // blocks that are summed up on their own, see attention.cpp

// Where the keys of a block's positions lie: in slots that follow each other and share a block of the storage.
struct Run {
  int32_t slot = 0;
  int32_t at = 0;  // of the first one in the block
  int32_t count = 0;
};
struct BlockSlots {
  int32_t count = 0;  // positions, at most kKeys
  int32_t runs = 0;
  Run run[kKeys];

  void clear() { count = runs = 0; }
  void add(int32_t slot, int32_t how_many) {
    while (how_many > 0) {
      const int32_t taken = std::min(how_many, kKvSlots - slot % kKvSlots);
      run[runs++] = {slot, count, taken};
      count += taken;
      slot += taken;
      how_many -= taken;
    }
  }
};

// Unpacks a block: keys [head_dim][kKeys], zeros past count, and values [count][stride], stride head_dim rounded up to
// a multiple of 16; without their scales. Past head_dim values mean nothing.
void unpack_block(const KeyValueView& kv, const BlockSlots& slots, int kv_head, int head_dim, int stride, float* keys,
                  float* values);

// What scores and values of a block are multiplied with, [kKeys] each, zeros past count; false, and nothing written,
// where the type has no scales.
bool unpack_scales(const KeyValueView& kv, const BlockSlots& slots, int kv_head, float* key_scales,
                   float* value_scales);

// Asks for the same bytes ahead of their use: a head's part of a block is too short for the processor to see a pattern.
void prefetch_block(const KeyValueView& kv, const BlockSlots& slots, int kv_head, int head_dim);

// One step of softmax along the keys: rows of scores [rows][kKeys], times key_scales, become exp(score - top), times
// value_scales, where top [rows] rises to the largest score so far, and total [rows][16] adds up the exponentials lane
// by lane. Keys outside [first, last) of a row, both in [0, kKeys], are not seen: they become 0. scale [rows] is what
// earlier sums must be multiplied by. Scales: both, or none (null).
void soften(float* scores, int rows, const int* first, const int* last, const float* key_scales,
            const float* value_scales, float* top, float* total, float* scale);

}  // namespace thimble::attention
