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

template <class T>
Buffer<T> take_from(std::map<size_t, std::vector<Buffer<T>>>& free, int64_t count, size_t& allocated) {
  const size_t size = size_class(count);
  // A buffer up to twice as large will do: those of the largest micro-batch then serve the smaller ones.
  for (auto it = free.lower_bound(size); it != free.end() && it->first <= 2 * size; ++it) {
    if (it->second.empty()) continue;
    Buffer<T> buffer = std::move(it->second.back());
    it->second.pop_back();
    return buffer;
  }
  // Micro-batches differ in length. A larger buffer takes the place of a smaller one that lies idle, or else every
  // length that ever came by would keep a set of its own.
  for (auto it = free.lower_bound(size); it != free.begin();) {
    --it;
    if (it->first < size / 2) break;
    if (it->second.empty()) continue;
    allocated -= it->first * sizeof(T);
    it->second.pop_back();
    break;
  }
  allocated += size * sizeof(T);
  return Buffer<T>(size);
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

Buffer<float> BufferPool::take(int64_t count) { return take_from(floats_, count, allocated_); }
Buffer<uint16_t> BufferPool::take_bf16(int64_t count) { return take_from(halves_, count, allocated_); }
void BufferPool::give(Buffer<float>&& buffer) {
  if (!buffer.empty()) floats_[buffer.size()].push_back(std::move(buffer));
}
void BufferPool::give(Buffer<uint16_t>&& buffer) {
  if (!buffer.empty()) halves_[buffer.size()].push_back(std::move(buffer));
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
