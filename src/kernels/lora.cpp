#include "kernels/lora.h"

#include "kernels/elementwise.h"
#include "kernels/gemm_operand.h"

namespace thimble {
namespace {

using gemm::Kernels;
using gemm::Operand;

}  // namespace

void lora_forward(GemmPrecision precision, const GemmInput& x, const Tensor& w, const LowRank& adapter, float* y,
                  float* t, bool accumulate) {
  const int64_t in = w.cols(), out = w.rows(), rank = adapter.rank;
  const Tensor a = f32_matrix(adapter.a, rank, in), b = f32_matrix(adapter.b, out, rank);
  const GemmInput t_rows{t, x.rows, rank};
  gemm::with_kernels(precision, [&]<class E>(const Kernels<E>& kernels) {
    const Operand<E> left(x);
    gemm::multiply<E>(kernels, x.rows, rank, {left.data(), left.stride(), in, &a, true}, {}, t, false);
    const Operand<E> low(t_rows, adapter.scale);
    gemm::multiply<E>(kernels, x.rows, out, {left.data(), left.stride(), in, &w, true},
                      {low.data(), low.stride(), rank, &b, true}, y, accumulate);
  });
}

void lora_backward(GemmPrecision precision, const GemmInput& dy, const GemmInput& x, const Tensor& w,
                   const LowRank& adapter, const float* t, float* dx, bool accumulate, float* da, float* db) {
  const int64_t in = w.cols(), out = w.rows(), rank = adapter.rank, rows = dy.rows;
  const Tensor a = f32_matrix(adapter.a, rank, in), b = f32_matrix(adapter.b, out, rank);
  const Scratch<float> u(static_cast<size_t>(rows * rank));
  const GemmInput u_rows{u.data(), rows, rank}, t_rows{t, rows, rank};
  gemm::with_kernels(precision, [&]<class E>(const Kernels<E>& kernels) {
    const Operand<E> left(dy);
    gemm::multiply<E>(kernels, rows, rank, {left.data(), left.stride(), out, &b, false}, {}, u.data(), false);
    scale_values(u.data(), rows * rank, adapter.scale);
    if (dx != nullptr) {
      const Operand<E> low(u_rows);
      gemm::multiply<E>(kernels, rows, in, {left.data(), left.stride(), out, &w, false},
                        {low.data(), low.stride(), rank, &a, false}, dx, accumulate);
    }
    GemmInput dy_rows = dy;
    if constexpr (sizeof(E) == 2)  // once rounded, it serves db as well
      if (left.stride() == out) dy_rows.bf16 = left.data();
    linear_backward_weight(precision, dy_rows, t_rows, db, true, adapter.scale);
  });
  linear_backward_weight(precision, u_rows, x, da, true);
}

}  // namespace thimble
