#pragma once

#include <cstdint>

namespace thimble {

// y = x/2 · (1 + tanh(sqrt(2/pi) · (x + 0.044715 x³))), the tanh form that GPT-2 has (Hendrycks and Gimpel 2016,
// arXiv 1606.08415). All [count]; y may be x.
void gelu_forward(const float* x, int64_t count, float* y);
void gelu_backward(const float* x, const float* dy, int64_t count, float* dx);  // dx may be dy or x

}  // namespace thimble
