#pragma once

#include <cstdint>

namespace thimble {

// y = x / sqrt(mean(x²) + eps) · weight, each row by itself (Zhang and Sennrich 2019, arXiv 1910.07467).
// x, y [rows, cols], weight [cols]. y may be x.
void rms_norm_forward(const float* x, const float* weight, int64_t rows, int64_t cols, float eps, float* y);

// dx [rows, cols] is written, or added to with `accumulate`; dweight [cols] is added to, or null where the weight
// is frozen.
void rms_norm_backward(const float* x, const float* weight, const float* dy, int64_t rows, int64_t cols, float eps,
                       float* dx, bool accumulate, float* dweight = nullptr);

}  // namespace thimble
