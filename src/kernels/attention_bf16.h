#pragma once

#include <cstdint>

#include "kernels/attention_plan.h"
#include "kernels/attention_tiles.h"

namespace thimble {

// Attention of training in bf16, as PyTorch computes it under autocast: queries, keys, values and the gradient of the
// result are rounded, and so are probabilities and gradients of scores before they are multiplied; sums and softmax are
// f32 (Dao et al. 2022, arXiv 2205.14135). Forward and backward round the same way, so that the small differences
// which backward is made of keep their meaning.
// A row of the result is the same bits whatever is packed beside it; the gradients of keys and values are sums over
// queries in an order that the plan alone decides, not the threads.

// Whether this machine has it for such heads: at CpuLevel::kAvx512Bf16, for an even head_dim up to 256.
bool has_attention_bf16(const AttentionShape& shape);

struct AttentionInputs {
  const uint16_t* q = nullptr;  // bf16 [tiles.query_rows, heads * head_dim]
  const uint16_t* k = nullptr;  // bf16 [tiles.key_rows, kv_heads * head_dim]
  const uint16_t* v = nullptr;  // the same
};

// out [query_rows, heads * head_dim]; lse [query_rows, heads]: log of the sum of exp of the scaled scores.
void attention_bf16_forward(const AttentionTiles& tiles, const AttentionInputs& in, const AttentionShape& shape,
                            float* out, float* lse);

// From out and lse as forward wrote them and dout [query_rows, heads * head_dim]; dq, dk and dv are written, in the
// shapes of q, k and v.
void attention_bf16_backward(const AttentionTiles& tiles, const AttentionInputs& in, const AttentionShape& shape,
                             const float* out, const float* lse, const float* dout, float* dq, float* dk, float* dv);

}  // namespace thimble
