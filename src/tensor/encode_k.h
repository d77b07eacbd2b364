#pragma once

#include "tensor/blocks.h"

namespace thimble {

// 256 values to a block of a K type, byte for byte as ggml's reference does (quantize_row_q4_K_ref and its sisters in
// ggml-quants.c): every sub-block searches the scale (and min) with the least weighted squared error.
void encode(const float* x, BlockQ4_K& block);
void encode(const float* x, BlockQ5_K& block);
void encode(const float* x, BlockQ6_K& block);

}  // namespace thimble
