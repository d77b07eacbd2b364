#pragma once

#include "kernels/gemm.h"

// The references: what the fast versions are tested against, and what machines without AVX2 run.
namespace thimble::plain {

void linear_forward(const GemmInput& x, const Tensor& w, float* y, bool accumulate);
void linear_backward_input(const GemmInput& dy, const Tensor& w, float* dx, bool accumulate);
void linear_backward_weight(const GemmInput& dy, const GemmInput& x, float* dw, bool accumulate, float scale);

}  // namespace thimble::plain
