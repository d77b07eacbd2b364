#include "kernels/gemm.h"

#include <cassert>

#include "core/buffer.h"
#include "kernels/elementwise.h"
#include "kernels/gemm_plain.h"
#include "tensor/half.h"

namespace thimble {
namespace {

// Where only the bf16 copy was kept, f32 kernels read it widened.
struct Widened {
  explicit Widened(const GemmInput& input) : view(input) {
    if (input.values != nullptr) return;
    assert(input.bf16 != nullptr);
    buffer = Buffer<float>(static_cast<size_t>(input.rows * input.cols));
    simd::for_pieces(input.rows * input.cols, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) buffer[static_cast<size_t>(i)] = bf16_to_f32(input.bf16[i]);
    });
    view.values = buffer.data();
  }
  Buffer<float> buffer;
  GemmInput view;
};

}  // namespace

void convert_to_bf16(const float* x, int64_t count, uint16_t* out) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) out[i] = f32_to_bf16(x[i]);
  });
}

void linear_forward(GemmPrecision, const GemmInput& x, const Tensor& w, float* y, bool accumulate) {
  assert(x.cols == w.cols());
  plain::linear_forward(Widened(x).view, w, y, accumulate);
}

void linear_backward_input(GemmPrecision, const GemmInput& dy, const Tensor& w, float* dx, bool accumulate) {
  assert(dy.cols == w.rows());
  plain::linear_backward_input(Widened(dy).view, w, dx, accumulate);
}

void linear_backward_weight(GemmPrecision, const GemmInput& dy, const GemmInput& x, float* dw, bool accumulate,
                            float scale) {
  assert(dy.rows == x.rows);
  plain::linear_backward_weight(Widened(dy).view, Widened(x).view, dw, accumulate, scale);
}

}  // namespace thimble
