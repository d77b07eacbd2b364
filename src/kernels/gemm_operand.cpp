#include "kernels/gemm_operand.h"

#include <algorithm>
#include <cassert>

#include "core/thread_pool.h"
#include "kernels/elementwise.h"
#include "kernels/unpack_bf16.h"
#include "tensor/half.h"

namespace thimble::gemm {
namespace {

constexpr int64_t kRowsAtOnce = 32;

template <class E>
int64_t padded_stride(int64_t cols) {
  constexpr int64_t kPair = 4 / sizeof(E);
  const int64_t stride = (cols + kPair - 1) / kPair * kPair;
  return stride * static_cast<int64_t>(sizeof(E)) % 2048 == 0 ? stride + 64 / static_cast<int64_t>(sizeof(E)) : stride;
}

// Row `row` as floats: where they lie, or widened into `space`.
const float* floats(const GemmInput& input, int64_t row, float* space) {
  if (input.values != nullptr) return input.values + row * input.cols;
  for (int64_t i = 0; i < input.cols; ++i) space[i] = bf16_to_f32(input.bf16[row * input.cols + i]);
  return space;
}

void convert(const GemmInput& input, int64_t row, float scale, float* out) {
  const float* from = floats(input, row, out);
  for (int64_t i = 0; i < input.cols; ++i) out[i] = from[i] * scale;
}
void convert(const GemmInput& input, int64_t row, float scale, uint16_t* out) {
  if (input.values != nullptr) return round_bf16(input.values + row * input.cols, input.cols, scale, out);
  if (scale == 1) {
    std::copy_n(input.bf16 + row * input.cols, input.cols, out);
    return;
  }
  const Scratch<float> space(static_cast<size_t>(input.cols));
  round_bf16(floats(input, row, space.data()), input.cols, scale, out);
}

void transpose(const float* x, int64_t rows, int64_t cols, float scale, uint16_t* out, int64_t stride) {
  transpose_bf16(x, rows, cols, scale, out, stride);
}
void transpose(const float* x, int64_t rows, int64_t cols, float scale, float* out, int64_t stride) {
  for (int64_t first = 0; first < cols; first += 16)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = first; c < std::min(cols, first + 16); ++c) out[c * stride + r] = x[r * cols + c] * scale;
}

const float* given(const GemmInput& input, const float*) { return input.values; }
const uint16_t* given(const GemmInput& input, const uint16_t*) { return input.bf16; }

}  // namespace

template <class E>
E* Operand<E>::make(int64_t rows, int64_t cols) {
  stride_ = padded_stride<E>(cols);
  owned_.emplace(static_cast<size_t>(rows * stride_));
  data_ = owned_->data();
  return owned_->data();
}

template <class E>
Operand<E>::Operand(const GemmInput& input, float scale) {
  assert(input.values != nullptr || input.bf16 != nullptr);
  const E* as_given = given(input, static_cast<const E*>(nullptr));
  if (as_given != nullptr && scale == 1 && (padded_stride<E>(input.cols) == input.cols || input.rows == 1)) {
    if (input.cols % (4 / static_cast<int64_t>(sizeof(E))) == 0) {
      data_ = as_given;
      stride_ = input.cols;
      return;
    }
  }
  E* to = make(input.rows, input.cols);
  threads().parallel_for((input.rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t task, int) {
    for (int64_t r = task * kRowsAtOnce; r < std::min(input.rows, (task + 1) * kRowsAtOnce); ++r) {
      convert(input, r, scale, to + r * stride_);
      std::fill(to + r * stride_ + input.cols, to + (r + 1) * stride_, E{});
    }
  });
}

template <class E>
Operand<E> Operand<E>::transposed(const GemmInput& input, float scale) {
  Operand<E> result(input.cols, input.rows);
  E* to = result.owned_->data();
  const int64_t stride = result.stride_;
  threads().parallel_for((input.rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t task, int) {
    const int64_t first = task * kRowsAtOnce, rows = std::min(input.rows - first, kRowsAtOnce);
    if (input.values != nullptr)
      return transpose(input.values + first * input.cols, rows, input.cols, scale, to + first, stride);
    const Scratch<float> space(static_cast<size_t>(rows * input.cols));
    for (int64_t r = 0; r < rows; ++r) floats(input, first + r, space.data() + r * input.cols);
    transpose(space.data(), rows, input.cols, scale, to + first, stride);
  });
  for (int64_t c = 0; c < input.cols; ++c) std::fill(to + c * stride + input.rows, to + (c + 1) * stride, E{});
  return result;
}

template <class E>
Operand<E>::Operand(int64_t rows, int64_t cols) {
  make(rows, cols);
}

template class Operand<float>;
template class Operand<uint16_t>;

template <>
Tensor as_tensor<float>(const GemmInput& input) {
  if (input.values != nullptr)
    return {DType::kF32, {input.rows, input.cols}, reinterpret_cast<const std::byte*>(input.values), nullptr};
  return {DType::kBF16, {input.rows, input.cols}, reinterpret_cast<const std::byte*>(input.bf16), nullptr};
}
template <>
Tensor as_tensor<uint16_t>(const GemmInput& input) {
  if (input.bf16 != nullptr)
    return {DType::kBF16, {input.rows, input.cols}, reinterpret_cast<const std::byte*>(input.bf16), nullptr};
  return {DType::kF32, {input.rows, input.cols}, reinterpret_cast<const std::byte*>(input.values), nullptr};
}

}  // namespace thimble::gemm
