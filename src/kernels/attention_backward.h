#pragma once

#include "kernels/attention_plan.h"
#include "kernels/gemm.h"

namespace thimble {

// Gradients of attention over a plan. rows = plan.rows() query rows, key_rows rows of keys and values:
//   q, out, dout, dq  [rows, heads * head_dim]
//   k, v, dk, dv      [key_rows, kv_heads * head_dim]
//   lse               [rows, heads]: log of the sum of exp of the scaled scores, as the forward pass left it
// dq, dk and dv are written whole; a key row that several branches see gets the sum of what they send, in the order
// of the plan. Probabilities are made again from lse, so that memory does not grow with rows²
// (Dao et al. 2022, arXiv 2205.14135).
void attention_backward(GemmPrecision precision, const float* q, const float* k, const float* v, const float* out,
                        const float* lse, const float* dout, int64_t key_rows, const AttentionPlan& plan,
                        const AttentionShape& shape, float* dq, float* dk, float* dv);

}  // namespace thimble
