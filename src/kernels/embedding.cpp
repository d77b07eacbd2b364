#include "kernels/embedding.h"

#include <algorithm>
#include <cassert>

#include "core/thread_pool.h"
#include "tensor/quantize.h"

namespace thimble {

void embedding_forward(const Tensor& table, const int32_t* ids, int64_t rows, float* y) {
  const int64_t cols = table.cols();
  const auto row = [&](int64_t r) {
    assert(ids[r] >= 0 && ids[r] < table.rows());
    dequantize_row(table.type, table.row(ids[r]), cols, y + r * cols);
  };
  if (rows < 16) {
    for (int64_t r = 0; r < rows; ++r) row(r);
    return;
  }
  threads().parallel_for((rows + 15) / 16, [&](int64_t task, int) {
    for (int64_t r = task * 16; r < std::min(rows, (task + 1) * 16); ++r) row(r);
  });
}

void embedding_backward(const float* dy, const int32_t* ids, int64_t rows, int64_t cols, float* dtable) {
  constexpr int64_t kColumns = 64;  // tasks own columns, so that rows of one id are added in order
  threads().parallel_for((cols + kColumns - 1) / kColumns, [&](int64_t task, int) {
    const int64_t first = task * kColumns, last = std::min(cols, first + kColumns);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = first; i < last; ++i) dtable[ids[r] * cols + i] += dy[r * cols + i];
  });
}

}  // namespace thimble
