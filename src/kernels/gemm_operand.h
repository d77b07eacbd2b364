#pragma once

#include <cstdint>
#include <optional>

#include "kernels/gemm.h"
#include "kernels/gemm_kernels.h"
#include "kernels/scratch.h"

namespace thimble::gemm {

// The left factor of a product as tiles read it: elements E, rows a whole number of pairs long (padded with 0) and
// not at a distance that would put them all into one cache set. Uses the caller's memory where that fits already.
template <class E>
class Operand {
 public:
  // input · scale
  explicit Operand(const GemmInput& input, float scale = 1);
  // inputᵀ · scale
  static Operand transposed(const GemmInput& input, float scale);

  const E* data() const { return data_; }
  int64_t stride() const { return stride_; }
  Tensor tensor(int64_t rows) const {  // [rows, stride]: columns are the input's, and what fills them up
    return {sizeof(E) == 2 ? DType::kBF16 : DType::kF32,
            {rows, stride_},
            reinterpret_cast<const std::byte*>(data_),
            nullptr};
  }

 private:
  Operand(int64_t rows, int64_t cols);  // uninitialised
  E* make(int64_t rows, int64_t cols);

  const E* data_ = nullptr;
  int64_t stride_ = 0;
  std::optional<Scratch<E>> owned_;
};

// The input as the right factor, [rows, cols]: its bf16 copy where E is bf16 and it has one.
template <class E>
Tensor as_tensor(const GemmInput& input);

}  // namespace thimble::gemm
