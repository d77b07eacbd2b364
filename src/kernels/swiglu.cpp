#include "kernels/swiglu.h"

#include "kernels/elementwise.h"

namespace thimble {
namespace {

using simd::F32;
using simd::kLanes;

[[gnu::always_inline]] inline F32 forward(F32 gate, F32 up) { return gate * simd::sigmoid(gate) * up; }

struct Gradients {
  F32 gate;
  F32 up;
};
// silu'(g) = s · (1 + g · (1 - s)) with s = sigmoid(g)
[[gnu::always_inline]] inline Gradients backward(F32 gate, F32 up, F32 dy) {
  const F32 s = simd::sigmoid(gate);
  return {dy * up * s * (1.0f + gate * (1.0f - s)), dy * gate * s};
}

}  // namespace

void swiglu_forward(const float* gate, const float* up, int64_t count, float* y) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      int64_t i = first;
      for (; i + kLanes <= last; i += kLanes) simd::store(y + i, forward(simd::load(gate + i), simd::load(up + i)));
      if (const int64_t n = last - i; n > 0)
        simd::store(y + i, forward(simd::load(gate + i, n), simd::load(up + i, n)), n);
    });
  });
}

void swiglu_backward(const float* gate, const float* up, const float* dy, int64_t count, float* dgate, float* dup) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      int64_t i = first;
      for (; i + kLanes <= last; i += kLanes) {
        const Gradients d = backward(simd::load(gate + i), simd::load(up + i), simd::load(dy + i));
        simd::store(dgate + i, d.gate);
        simd::store(dup + i, d.up);
      }
      if (const int64_t n = last - i; n > 0) {
        const Gradients d = backward(simd::load(gate + i, n), simd::load(up + i, n), simd::load(dy + i, n));
        simd::store(dgate + i, d.gate, n);
        simd::store(dup + i, d.up, n);
      }
    });
  });
}

}  // namespace thimble
