#pragma once

#include <cstdint>
#include <span>

#include "core/buffer.h"

namespace thimble {

// Cosines and sines of position · frequency for positions [0, positions): made once for a context, because they
// cost more than the turning. Angles are f32 products, as transformers computes them.
class RopeTable {
 public:
  RopeTable() = default;
  RopeTable(std::span<const float> inverse_frequencies, int32_t positions);

  int32_t positions() const { return positions_; }
  int head_dim() const { return static_cast<int>(2 * half_); }
  const float* cosines(int32_t position) const { return values_.data() + position * 2 * half_; }  // [head_dim / 2]
  const float* sines(int32_t position) const { return cosines(position) + half_; }                // [head_dim / 2]

 private:
  int32_t positions_ = 0;
  int64_t half_ = 0;
  Buffer<float> values_;
};

// Rotary positions in the half-rotation layout (Su et al. 2021, arXiv 2104.09864): in every head, element i turns
// with element i + head_dim / 2 by the angle of its row's position. x, y [rows, heads * head_dim]; positions [rows],
// each below table.positions(). y may be x.
void rope_forward(const float* x, int64_t rows, int heads, const int32_t* positions, const RopeTable& table, float* y);
// The transposed turn. dx may be dy.
void rope_backward(const float* dy, int64_t rows, int heads, const int32_t* positions, const RopeTable& table,
                   float* dx);

}  // namespace thimble
