#include "kernels/dora.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/elementwise.h"
#include "kernels/scratch.h"
#include "tensor/quantize.h"

namespace thimble {
void squared_row_norms(const Tensor& w, float* squares) {
  threads().parallel_for(w.rows(), [&](int64_t row, int) {
    const Scratch<float> values(static_cast<size_t>(w.cols()));
    dequantize_row(w.type, w.row(row), w.cols(), values.data());
    double sum = 0;
    for (int64_t i = 0; i < w.cols(); ++i) sum += static_cast<double>(values.data()[i]) * values.data()[i];
    squares[row] = static_cast<float>(sum);
  });
}

// ‖w + s·b·a‖² = ‖w‖² + 2s · b · (a · w) + s² · b · (a · aᵀ) · b, for a row w of the weight and b of b.
void dora_norms(GemmPrecision precision, const Tensor& w, const float* squares, const LowRank& adapter, float* norms) {
  const int64_t rank = adapter.rank, in = w.cols(), out = w.rows();
  const Scratch<float> along(static_cast<size_t>(rank * out)), gram(static_cast<size_t>(rank * rank));
  linear_forward(precision, {adapter.a, rank, in}, w, along.data());
  linear_forward(precision, {adapter.a, rank, in}, f32_matrix(adapter.a, rank, in), gram.data());
  constexpr int64_t kOutputs = 64;
  threads().parallel_for((out + kOutputs - 1) / kOutputs, [&](int64_t task, int) {
    for (int64_t o = task * kOutputs; o < std::min(out, (task + 1) * kOutputs); ++o) {
      const float* b = adapter.b + o * rank;
      float linear = 0, square = 0;
      for (int64_t r = 0; r < rank; ++r) {
        linear += b[r] * along.data()[r * out + o];
        const float* row = gram.data() + r * rank;
        float sum = 0;
        for (int64_t s = 0; s < rank; ++s) sum += b[s] * row[s];
        square += b[r] * sum;
      }
      norms[o] = std::sqrt(std::max(0.0f, squares[o] + adapter.scale * (2 * linear + adapter.scale * square)));
    }
  });
}

void dora_forward(const float* z, const float* magnitude, const float* norms, int64_t rows, int64_t out, float* y) {
  std::vector<float> gains(static_cast<size_t>(out));
  for (int64_t o = 0; o < out; ++o) gains[static_cast<size_t>(o)] = dora_gain(magnitude[o], norms[o]);
  const float* gain = gains.data();
  threads().parallel_for(rows, [&](int64_t r, int) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t o = 0; o < out; ++o) y[r * out + o] = z[r * out + o] * gain[o];
    });
  });
}

void dora_backward(const float* z, const float* magnitude, const float* norms, int64_t rows, int64_t out, float* dy,
                   float* dmagnitude) {
  constexpr int64_t kColumns = 64;  // tasks own columns, so that every sum runs in the order of the rows
  threads().parallel_for((out + kColumns - 1) / kColumns, [&](int64_t task, int) {
    const int64_t first = task * kColumns, count = std::min(out - first, kColumns);
    float gain[kColumns], sum[kColumns] = {};
    for (int64_t i = 0; i < count; ++i) gain[i] = dora_gain(magnitude[first + i], norms[first + i]);
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t r = 0; r < rows; ++r) {
        const float* zr = z + r * out + first;
        float* dyr = dy + r * out + first;
        for (int64_t i = 0; i < count; ++i) {
          sum[i] += dyr[i] * zr[i];
          dyr[i] *= gain[i];
        }
      }
    });
    for (int64_t i = 0; i < count; ++i) dmagnitude[first + i] += dora_gain(sum[i], norms[first + i]);
  });
}

}  // namespace thimble
