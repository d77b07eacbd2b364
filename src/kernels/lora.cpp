#include "kernels/lora.h"

#include <algorithm>

#include "core/buffer.h"
#include "kernels/adamw.h"

namespace thimble {
namespace {

Tensor factor(const float* values, int64_t rows, int64_t cols) {
  return {DType::kF32, {rows, cols}, reinterpret_cast<const std::byte*>(values), nullptr};
}

}  // namespace

void lora_forward(GemmPrecision precision, const GemmInput& x, const Tensor& w, const LowRank& adapter, float* y,
                  float* t, bool accumulate) {
  const int64_t in = w.cols(), out = w.rows(), rank = adapter.rank;
  linear_forward(precision, x, factor(adapter.a, rank, in), t);
  linear_forward(precision, x, w, y, accumulate);
  Buffer<float> scaled(static_cast<size_t>(out * rank));
  std::copy(adapter.b, adapter.b + out * rank, scaled.data());
  scale_values(scaled.data(), out * rank, adapter.scale);
  linear_forward(precision, {t, x.rows, rank}, factor(scaled.data(), out, rank), y, true);
}

void lora_backward(GemmPrecision precision, const GemmInput& dy, const GemmInput& x, const Tensor& w,
                   const LowRank& adapter, const float* t, float* dx, bool accumulate, float* da, float* db) {
  const int64_t in = w.cols(), out = w.rows(), rank = adapter.rank;
  Buffer<float> u(static_cast<size_t>(dy.rows * rank));
  linear_backward_input(precision, dy, factor(adapter.b, out, rank), u.data());
  scale_values(u.data(), dy.rows * rank, adapter.scale);
  const GemmInput u_rows{u.data(), dy.rows, rank};
  if (dx != nullptr) {
    linear_backward_input(precision, dy, w, dx, accumulate);
    linear_backward_input(precision, u_rows, factor(adapter.a, rank, in), dx, true);
  }
  linear_backward_weight(precision, u_rows, x, da, true);
  linear_backward_weight(precision, dy, {t, dy.rows, rank}, db, true, adapter.scale);
}

}  // namespace thimble
