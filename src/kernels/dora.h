#pragma once

#include <cstdint>

#include "kernels/gemm.h"
#include "kernels/lora.h"

namespace thimble {

// Weight-decomposed low-rank adaptation (DoRA, Liu et al. 2024, arXiv 2402.09353): every output of an adapted layer
// is stretched to a trained length, its gain: magnitude / norm of its row of w + scale · b · a. As PEFT does it, no
// gradient goes through the norm (the paper's section 4.3).

// squares[out]: of every row of w [out, in], summed; they don't change while w is frozen.
void squared_row_norms(const Tensor& w, float* squares);

// norms[out] of the rows of w + scale · b · a, without making that matrix.
void dora_norms(GemmPrecision precision, const Tensor& w, const float* squares, const LowRank& adapter, float* norms);

// gain = magnitude / norm; a row of zeros has none and stays zero.
inline float dora_gain(float magnitude, float norm) { return norm > 0 ? magnitude / norm : 0.0f; }

// y[rows, out] = z · gain of each output. y may be z.
void dora_forward(const float* z, const float* magnitude, const float* norms, int64_t rows, int64_t out, float* y);

// dy[rows, out] becomes dz = dy · gain; dmagnitude[out] += sum over rows of dy · z / norm.
void dora_backward(const float* z, const float* magnitude, const float* norms, int64_t rows, int64_t out, float* dy,
                   float* dmagnitude);

}  // namespace thimble
