#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/buffer.h"

namespace thimble {

// Cosines and sines of position · frequency for positions [0, positions): made once, because they cost more than the
// turning, and only as far as positions have come: a model's whole context takes longer than a short text. Angles are
// f32 products, as transformers computes them.
class RopeTable {
 public:
  RopeTable() = default;
  RopeTable(std::span<const float> inverse_frequencies, int32_t positions);
  RopeTable(RopeTable&&) noexcept = default;
  RopeTable& operator=(RopeTable&&) noexcept = default;

  int32_t positions() const { return positions_; }
  // Makes positions [0, count) ready; rope_forward and rope_backward do it themselves. Any thread may call it.
  void make(int32_t count) const;
  int head_dim() const { return static_cast<int>(2 * half_); }
  const float* cosines(int32_t position) const { return values_.data() + position * 2 * half_; }  // [head_dim / 2]
  const float* sines(int32_t position) const { return cosines(position) + half_; }                // [head_dim / 2]

 private:
  int32_t positions_ = 0;
  int64_t half_ = 0;
  std::vector<float> frequencies_;
  Buffer<float> values_;
  struct Made;
  std::shared_ptr<Made> made_;  // how far the values are there
};

// Rotary positions in the half-rotation layout (Su et al. 2021, arXiv 2104.09864): in every head, element i turns
// with element i + head_dim / 2 by the angle of its row's position. x, y [rows, heads * head_dim]; positions [rows],
// each below table.positions(). y may be x.
void rope_forward(const float* x, int64_t rows, int heads, const int32_t* positions, const RopeTable& table, float* y);
// The transposed turn. dx may be dy.
void rope_backward(const float* dy, int64_t rows, int heads, const int32_t* positions, const RopeTable& table,
                   float* dx);

}  // namespace thimble
