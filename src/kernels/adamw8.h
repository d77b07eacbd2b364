#pragma once

#include <array>
#include <cstdint>

#include "kernels/adamw.h"

namespace thimble {

// AdamW whose two moments take a byte each (Dettmers et al. 2022, arXiv 2110.02861): every block of 256 elements has its
// largest magnitude in f32, and of each element the nearest of 256 shares of it. The shares are the paper's dynamic map:
// 7 decades, the upper ones finer, so that small moments beside large ones keep their size.

inline constexpr int64_t kAdamW8Block = 256;

// The shares, ascending: from -1 to 1 for the first moment, from 0 to 1 for the second.
const std::array<float, 256>& signed_shares();
const std::array<float, 256>& unsigned_shares();

// The nearest share's number, the lower of two; x in [-1, 1]. The plain form of what adamw8_step does by table.
uint8_t nearest_share(const std::array<float, 256>& shares, float x);

// Moments of `count` elements: codes [count], and the scale of every block.
struct Moments8 {
  uint8_t* m = nullptr;
  uint8_t* v = nullptr;
  float* m_scales = nullptr;  // [ceil(count / 256)]
  float* v_scales = nullptr;
};

// adamw_step with such moments; they count as zero where their block's scale is 0. Blocks begin with element 0. The step
// itself uses the moments before they are rounded. A second moment above zero is never rounded to zero: divided by,
// it would blow a small step up.
void adamw8_step(const AdamWSettings& settings, int64_t step, float gradient_scale, const float* gradients,
                 int64_t count, float* parameters, const Moments8& moments);

}  // namespace thimble
