#include "kernels/gelu.h"

#include "kernels/elementwise.h"

namespace thimble {
namespace {

using simd::F32;
using simd::kLanes;

// (1 + tanh(u)) / 2 = sigmoid(2 u), with 2 u = a x + b x³
constexpr float kA = 1.5957691216057308f;  // 2 · sqrt(2 / pi)
constexpr float kB = 1.5957691216057308f * 0.044715f;

[[gnu::always_inline]] inline F32 forward(F32 x) { return x * simd::sigmoid(x * (kA + kB * x * x)); }

[[gnu::always_inline]] inline F32 backward(F32 x, F32 dy) {
  const F32 s = simd::sigmoid(x * (kA + kB * x * x));
  return dy * s * (1.0f + x * (1.0f - s) * (kA + 3.0f * kB * x * x));
}

}  // namespace

void gelu_forward(const float* x, int64_t count, float* y) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      int64_t i = first;
      for (; i + kLanes <= last; i += kLanes) simd::store(y + i, forward(simd::load(x + i)));
      if (const int64_t n = last - i; n > 0) simd::store(y + i, forward(simd::load(x + i, n)), n);
    });
  });
}

void gelu_backward(const float* x, const float* dy, int64_t count, float* dx) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      int64_t i = first;
      for (; i + kLanes <= last; i += kLanes) simd::store(dx + i, backward(simd::load(x + i), simd::load(dy + i)));
      if (const int64_t n = last - i; n > 0)
        simd::store(dx + i, backward(simd::load(x + i, n), simd::load(dy + i, n)), n);
    });
  });
}

}  // namespace thimble
