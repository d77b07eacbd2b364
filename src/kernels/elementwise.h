#pragma once

#include <algorithm>
#include <cstdint>

#include "core/thread_pool.h"
#include "kernels/simd.h"

namespace thimble::simd {

// Calls body(first, last) for pieces of [0, count), on all threads where that pays.
template <class Body>
void for_pieces(int64_t count, const Body& body) {
  constexpr int64_t kPiece = 16384;
  if (count <= kPiece) return body(int64_t{0}, count);
  threads().parallel_for((count + kPiece - 1) / kPiece,
                         [&](int64_t task, int) { body(task * kPiece, std::min(count, (task + 1) * kPiece)); });
}

}  // namespace thimble::simd

namespace thimble {

double squared_norm(const float* x, int64_t count);  // sum of x², in f64, in one fixed order
void scale_values(float* x, int64_t count, float factor);
void add_values(const float* a, const float* b, int64_t count, float* y);  // y = a + b; y may be a or b

}  // namespace thimble
