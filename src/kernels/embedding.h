#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace thimble {

// y[rows, cols] = the table's rows at ids [rows]; table [vocab, cols] of any element type, ids in [0, vocab).
void embedding_forward(const Tensor& table, const int32_t* ids, int64_t rows, float* y);
// dtable[vocab, cols] += dy's rows [rows, cols], in the order of the rows.
void embedding_backward(const float* dy, const int32_t* ids, int64_t rows, int64_t cols, float* dtable);

}  // namespace thimble
