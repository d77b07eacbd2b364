#pragma once

#include <cstdint>

namespace thimble {

// y = silu(gate) · up, silu(g) = g / (1 + exp(-g)) (Shazeer 2020, arXiv 2002.05202). All [count]; y may be gate or up.
void swiglu_forward(const float* gate, const float* up, int64_t count, float* y);
// dgate may be gate or dy, dup may be up or dy (not both dy).
void swiglu_backward(const float* gate, const float* up, const float* dy, int64_t count, float* dgate, float* dup);

}  // namespace thimble
