#include "kernels/gemm.h"

#include <algorithm>
#include <cassert>

#include "kernels/elementwise.h"
#include "kernels/gemm_operand.h"
#include "kernels/unpack_bf16.h"

namespace thimble {
namespace {

using gemm::Factor;
using gemm::Kernels;
using gemm::Operand;

template <class E>
void forward(const Kernels<E>& kernels, const GemmInput& x, const Tensor& w, float* y, bool accumulate) {
  const Operand<E> a(x);
  gemm::multiply<E>(kernels, x.rows, w.rows(), {a.data(), a.stride(), w.cols(), &w, true}, {}, y, accumulate);
}

template <class E>
void backward_input(const Kernels<E>& kernels, const GemmInput& dy, const Tensor& w, float* dx, bool accumulate) {
  const Operand<E> a(dy);
  gemm::multiply<E>(kernels, dy.rows, w.cols(), {a.data(), a.stride(), w.rows(), &w, false}, {}, dx, accumulate);
}

template <class E>
void backward_weight(const Kernels<E>& kernels, const GemmInput& dy, const GemmInput& x, float* dw, bool accumulate,
                     float scale) {
  const int64_t in = x.cols, out = dy.cols;
  if (in >= out || in > 64) {
    const Operand<E> a = Operand<E>::transposed(dy, scale);
    const Tensor b = gemm::as_tensor<E>(x);
    gemm::multiply<E>(kernels, out, in, {a.data(), a.stride(), x.rows, &b, false}, {}, dw, accumulate);
    return;
  }
  // A low rank's [out, in] is made as [in, out]: then the wide matrix is packed, and the narrow one transposed.
  const Operand<E> a = Operand<E>::transposed(x, scale);
  const Tensor b = gemm::as_tensor<E>(dy);
  const Scratch<float> turned(static_cast<size_t>(in * out));
  gemm::multiply<E>(kernels, in, out, {a.data(), a.stride(), x.rows, &b, false}, {}, turned.data(), false);
  for (int64_t first = 0; first < out; first += 16)
    for (int64_t i = 0; i < in; ++i)
      for (int64_t o = first; o < std::min(out, first + 16); ++o)
        dw[o * in + i] = (accumulate ? dw[o * in + i] : 0.0f) + turned.data()[i * out + o];
}

}  // namespace

void convert_to_bf16(const float* x, int64_t count, uint16_t* out) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    unpack_bf16(DType::kF32, reinterpret_cast<const std::byte*>(x + first), last - first, out + first);
  });
}

void linear_forward(GemmPrecision precision, const GemmInput& x, const Tensor& w, float* y, bool accumulate) {
  assert(x.cols == w.cols());
  gemm::with_kernels(precision, [&](const auto& kernels) { forward(kernels, x, w, y, accumulate); });
}

void linear_backward_input(GemmPrecision precision, const GemmInput& dy, const Tensor& w, float* dx, bool accumulate) {
  assert(dy.cols == w.rows());
  gemm::with_kernels(precision, [&](const auto& kernels) { backward_input(kernels, dy, w, dx, accumulate); });
}

void linear_backward_weight(GemmPrecision precision, const GemmInput& dy, const GemmInput& x, float* dw,
                            bool accumulate, float scale) {
  assert(dy.rows == x.rows);
  gemm::with_kernels(precision, [&](const auto& kernels) { backward_weight(kernels, dy, x, dw, accumulate, scale); });
}

}  // namespace thimble
