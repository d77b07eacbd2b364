#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace thimble {

// What an adapter adds to a linear layer: scale · b · a (Hu et al. 2021, arXiv 2106.09685).
struct LowRank {
  const float* a = nullptr;  // [rank, in]
  const float* b = nullptr;  // [out, rank]
  int64_t rank = 0;
  float scale = 1;  // alpha / rank
};

// y[rows, out] = x · wᵀ + scale · t · bᵀ with t[rows, rank] = x · aᵀ, which the backward pass needs.
// The low-rank part rides in the base product's sums: y is written once.
void lora_forward(GemmPrecision precision, const GemmInput& x, const Tensor& w, const LowRank& adapter, float* y,
                  float* t, bool accumulate = false);

// With u[rows, rank] = scale · dy · b:
//   dx[rows, in] = dy · w + u · a    (dx may be null where nobody needs it; `accumulate` adds to it)
//   da[rank, in] += uᵀ · x           db[out, rank] += scale · dyᵀ · t
void lora_backward(GemmPrecision precision, const GemmInput& dy, const GemmInput& x, const Tensor& w,
                   const LowRank& adapter, const float* t, float* dx, bool accumulate, float* da, float* db);

}  // namespace thimble
