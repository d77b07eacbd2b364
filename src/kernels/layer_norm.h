#pragma once

#include <cstdint>

namespace thimble {

// y = (x - mean(x)) / sqrt(var(x) + eps) · weight + bias, each row by itself (Ba et al. 2016, arXiv 1607.06450).
// x, y [rows, cols], weight, bias [cols]; bias may be null. y may be x.
void layer_norm_forward(const float* x, const float* weight, const float* bias, int64_t rows, int64_t cols, float eps,
                        float* y);

// dx [rows, cols] is written, or added to with `accumulate`; dweight and dbias [cols] are added to, or null where
// they are frozen.
void layer_norm_backward(const float* x, const float* weight, const float* dy, int64_t rows, int64_t cols, float eps,
                         float* dx, bool accumulate, float* dweight = nullptr, float* dbias = nullptr);

}  // namespace thimble
