#pragma once

#include <cstdint>

namespace thimble {

// y[rows, cols] += bias[cols], for every row.
void bias_forward(const float* bias, int64_t rows, int64_t cols, float* y);
// dbias[cols] += sum over rows of dy [rows, cols], in the order of the rows.
void bias_backward(const float* dy, int64_t rows, int64_t cols, float* dbias);

}  // namespace thimble
