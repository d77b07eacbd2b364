#include "train/tape.h"

#include <algorithm>
#include <cassert>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "tensor/half.h"

namespace thimble {
namespace {

constexpr size_t kSlab = size_t{64} << 20;

void widen(const uint16_t* from, int64_t count, float* to) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) to[i] = bf16_to_f32(from[i]);
  });
}

}  // namespace

void copy_values(const float* from, int64_t count, float* to) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) { std::copy(from + first, from + last, to + first); });
}

template <class T>
Buffer<T> BufferPool::take_from(std::map<size_t, std::vector<Buffer<T>>>& idle, int64_t count) {
  const auto size = static_cast<size_t>(count);
  if (auto& buffers = idle[size]; !buffers.empty()) {
    Buffer<T> buffer = std::move(buffers.back());
    buffers.pop_back();
    return buffer;
  }
  const size_t bytes = size * sizeof(T);
  if (slabs_.empty() || slabs_.back().size() - slab_used_ < bytes) {
    slabs_.emplace_back(std::max(kSlab, bytes));
    slab_used_ = 0;
  }
  Buffer<T> buffer(slabs_.back().part(slab_used_, bytes));
  slab_used_ = std::min((slab_used_ + bytes + 63) / 64 * 64, slabs_.back().size());
  allocated_ += bytes;
  return buffer;
}

void BufferPool::begin_batch(int64_t rows) {
  if (rows <= rows_) return;
  rows_ = rows;
  floats_.clear();
  halves_.clear();
  slabs_.clear();
  allocated_ = 0;
}
Buffer<float> BufferPool::take(int64_t rows, int64_t cols) {
  return take_from(floats_, std::max(rows, rows_) * cols);
}
Buffer<uint16_t> BufferPool::take_bf16(int64_t rows, int64_t cols) {
  return take_from(halves_, std::max(rows, rows_) * cols);
}
void BufferPool::give(Buffer<float>&& buffer) {
  if (const size_t size = buffer.size(); size > 0) floats_[size].push_back(std::move(buffer));
}
void BufferPool::give(Buffer<uint16_t>&& buffer) {
  if (const size_t size = buffer.size(); size > 0) halves_[size].push_back(std::move(buffer));
}

Value::~Value() {
  pool.give(std::move(values));
  pool.give(std::move(grad));
  pool.give(std::move(bf16));
}

float* Value::ensure_values() {
  if (!values.empty()) return values.data();
  values = pool.take(rows, cols);
  if (remake) {
    remake();
  } else {
    assert(!bf16.empty());
    widen(bf16.data(), count(), values.data());
  }
  return values.data();
}

const uint16_t* Value::ensure_bf16() {
  if (bf16.empty()) {
    const float* from = ensure_values();
    bf16 = pool.take_bf16(rows, cols);
    convert_to_bf16(from, count(), bf16.data());
  }
  return bf16.data();
}

void Value::drop_values() { pool.give(std::move(values)); }

void Value::drop_bf16() { pool.give(std::move(bf16)); }

Value::Target Value::grad_target() {
  const bool accumulate = !grad.empty();
  if (!accumulate) grad = pool.take(rows, cols);
  return {grad.data(), accumulate};
}

void Value::put_grad(Buffer<float>&& contribution) {
  if (needs_grad && grad.empty()) {
    grad = std::move(contribution);
    return;
  }
  if (needs_grad) add_values(grad.data(), contribution.data(), count(), grad.data());
  pool.give(std::move(contribution));
}

}  // namespace thimble
