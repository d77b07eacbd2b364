#include "train/tape.h"

#include <algorithm>
#include <cassert>

#include "core/thread_pool.h"
#include "kernels/adamw.h"
#include "kernels/gemm.h"
#include "tensor/half.h"

namespace thimble {
namespace {

// Sizes in steps of an eighth of a power of two: micro-batches differ by a few rows and should share buffers.
size_t size_class(int64_t count) {
  const auto wanted = static_cast<size_t>(std::max<int64_t>(count, 16));
  size_t step = 2;
  while (step * 16 < wanted) step *= 2;
  return (wanted + step - 1) / step * step;
}

template <class Body>
void for_pieces(int64_t count, const Body& body) {
  constexpr int64_t kPiece = 1 << 15;
  threads().parallel_for((count + kPiece - 1) / kPiece,
                         [&](int64_t piece, int) { body(piece * kPiece, std::min(count, (piece + 1) * kPiece)); });
}

void widen(const uint16_t* from, int64_t count, float* to) {
  for_pieces(count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) to[i] = bf16_to_f32(from[i]);
  });
}

}  // namespace

void copy_values(const float* from, int64_t count, float* to) {
  for_pieces(count, [&](int64_t first, int64_t last) { std::copy(from + first, from + last, to + first); });
}

template <class T>
Buffer<T> BufferPool::take_from(IdleBySize<T>& idle, int64_t count) {
  const size_t size = size_class(count);
  // A buffer up to a quarter larger will do: the largest micro-batch then serves the smaller ones.
  for (auto it = idle.lower_bound(size); it != idle.end() && it->first <= size + size / 4; ++it) {
    if (it->second.empty()) continue;
    Buffer<T> buffer = std::move(it->second.back().buffer);
    it->second.pop_back();
    return buffer;
  }
  // Micro-batches differ in length. A new buffer takes the place of one that only an earlier batch used, or else every
  // length that ever came by would keep a set of its own.
  for (auto& [other, buffers] : idle) {
    if (other < size / 2 || other > 2 * size || buffers.empty() || buffers.front().batch == batch_) continue;
    allocated_ -= other * sizeof(T);
    buffers.erase(buffers.begin());
    break;
  }
  allocated_ += size * sizeof(T);
  return Buffer<T>(size);
}

Buffer<float> BufferPool::take(int64_t count) { return take_from(floats_, count); }
Buffer<uint16_t> BufferPool::take_bf16(int64_t count) { return take_from(halves_, count); }
void BufferPool::give(Buffer<float>&& buffer) {
  if (const size_t size = buffer.size(); size > 0) floats_[size].push_back({std::move(buffer), batch_});
}
void BufferPool::give(Buffer<uint16_t>&& buffer) {
  if (const size_t size = buffer.size(); size > 0) halves_[size].push_back({std::move(buffer), batch_});
}

Value::~Value() {
  pool.give(std::move(values));
  pool.give(std::move(grad));
  pool.give(std::move(bf16));
}

float* Value::ensure_values() {
  if (!values.empty()) return values.data();
  values = pool.take(count());
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
    bf16 = pool.take_bf16(count());
    convert_to_bf16(from, count(), bf16.data());
  }
  return bf16.data();
}

void Value::drop_values() { pool.give(std::move(values)); }

void Value::drop_bf16() { pool.give(std::move(bf16)); }

Value::Target Value::grad_target() {
  const bool accumulate = !grad.empty();
  if (!accumulate) grad = pool.take(count());
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
