#include "kernels/bias.h"

#include <algorithm>

#include "core/thread_pool.h"

namespace thimble {

void bias_forward(const float* bias, int64_t rows, int64_t cols, float* y) {
  constexpr int64_t kRows = 64;
  threads().parallel_for((rows + kRows - 1) / kRows, [&](int64_t piece, int) {
    for (int64_t r = piece * kRows; r < std::min(rows, (piece + 1) * kRows); ++r)
      for (int64_t c = 0; c < cols; ++c) y[r * cols + c] += bias[c];
  });
}

void bias_backward(const float* dy, int64_t rows, int64_t cols, float* dbias) {
  constexpr int64_t kColumns = 64;  // tasks own columns
  threads().parallel_for((cols + kColumns - 1) / kColumns, [&](int64_t task, int) {
    const int64_t first = task * kColumns, last = std::min(cols, first + kColumns);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = first; c < last; ++c) dbias[c] += dy[r * cols + c];
  });
}

}  // namespace thimble
