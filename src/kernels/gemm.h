#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/tensor.h"

namespace thimble {

// What products are computed in. kBF16 rounds both factors to bfloat16 and sums in f32; machines without bfloat16
// dot products compute kBF16 as kF32. Sums run in one fixed order for every row, however many rows there are and
// however many threads.
enum class GemmPrecision { kF32, kBF16 };

// Activations or gradients, [rows, cols] row-major, with a bf16 copy where several products share them (q, k and v
// read the same x). In kBF16, values may be null where the copy is there.
struct GemmInput {
  const float* values = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  const uint16_t* bf16 = nullptr;  // the same values rounded to nearest even
};

// out[i] = bf16(x[i]), rounded to nearest even. In parallel.
void convert_to_bf16(const float* x, int64_t count, uint16_t* out);

// A weight is [out, in] of any element type: tiles of it are unpacked as they are needed, so that a quantised
// base is never copied. `accumulate` adds to what the result holds instead of replacing it.

// y[rows, out] = x[rows, in] · wᵀ
void linear_forward(GemmPrecision precision, const GemmInput& x, const Tensor& w, float* y, bool accumulate = false);
// dx[rows, in] = dy[rows, out] · w
void linear_backward_input(GemmPrecision precision, const GemmInput& dy, const Tensor& w, float* dx,
                           bool accumulate = false);
// dw[out, in] = scale · dyᵀ · x
void linear_backward_weight(GemmPrecision precision, const GemmInput& dy, const GemmInput& x, float* dw,
                            bool accumulate = false, float scale = 1);

inline void linear_forward(GemmPrecision precision, const float* x, int64_t rows, const Tensor& w, float* y,
                           bool accumulate) {
  linear_forward(precision, GemmInput{x, rows, w.cols()}, w, y, accumulate);
}
inline void linear_backward_input(GemmPrecision precision, const float* dy, int64_t rows, const Tensor& w, float* dx,
                                  bool accumulate) {
  linear_backward_input(precision, GemmInput{dy, rows, w.rows()}, w, dx, accumulate);
}

}  // namespace thimble
