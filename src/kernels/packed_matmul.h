#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "tensor/tensor.h"

namespace thimble {

// kF32 multiplies dequantised weights with f32 activations: the path that is compared with other implementations.
// kFast rounds activations as the weight's type allows (8 bits in groups of 32 for quantised weights, 16 in groups
// that hold outliers; bf16 for BF16 weights). kFine uses 16 bits everywhere: for the output head, whose errors no
// later layer averages out, and which decoding reads from memory no slower for it.
enum class MatmulPrecision : uint8_t { kFast, kFine, kF32 };

// How a packed weight lies in memory; packed_layout.h draws each of them.
enum class PackedKind : uint8_t { kF32, kF16, kBF16, kU8, kU4, kU4Min, kU5, kU5Min, kU6, kU4Super, kU5Super };

// A linear layer's weight, laid out for the kernels: rows interleaved by 16, in 2 MB pages. Independent of the
// instruction set: any CpuLevel runs any packed weight. Copies share the memory.
class PackedWeight {
 public:
  PackedWeight() = default;
  // weight [out, in], any DType; packs on the program's threads. The tensor's bytes are not needed afterwards: pages of a
  // mapped file are let go as they are packed.
  static PackedWeight pack(const Tensor& weight, MatmulPrecision precision = MatmulPrecision::kFast);

  int64_t out() const { return out_; }
  int64_t in() const { return in_; }
  size_t bytes() const { return bytes_; }
  bool empty() const { return out_ == 0; }
  PackedKind kind() const { return kind_; }
  MatmulPrecision precision() const { return precision_; }
  const std::byte* tile(int64_t index) const { return data_.get() + static_cast<size_t>(index) * tile_bytes_; }

 private:
  PackedKind kind_ = PackedKind::kF32;
  MatmulPrecision precision_ = MatmulPrecision::kF32;
  int64_t out_ = 0;
  int64_t in_ = 0;
  size_t tile_bytes_ = 0;  // of 16 rows
  size_t bytes_ = 0;
  std::shared_ptr<const std::byte> data_;
};

// One row of a packed weight, [in], as dequantize_row gives it of what was packed: what a tied embedding reads.
void unpack_row(const PackedWeight& weight, int64_t row, float* out);

// Bytes that pack() would take, for memory plans.
size_t packed_bytes(DType type, int64_t out, int64_t in, MatmulPrecision precision = MatmulPrecision::kFast);

// One product of a call: y[rows, out] = x[rows, in] · weightᵀ (+ bias), or y += that.
struct PackedMatmul {
  const PackedWeight* weight = nullptr;
  float* y = nullptr;           // [rows, out], contiguous
  const float* bias = nullptr;  // [out], or null
  bool add = false;             // add to y instead of overwriting it
};

// Several products of the same x [rows, in] (q, k and v; gate and up) in one parallel loop; every weight's in() is
// the same, types may differ. A row's result is bit-identical whatever the other rows, their number, the products
// beside it and the number of threads are (at one CpuLevel). x and the outputs must not overlap.
void packed_matmul(const float* x, int64_t rows, std::span<const PackedMatmul> products);

inline void packed_matmul(const float* x, int64_t rows, const PackedWeight& weight, float* y,
                          const float* bias = nullptr) {
  const PackedMatmul product{&weight, y, bias, false};
  packed_matmul(x, rows, std::span<const PackedMatmul>(&product, 1));
}

}  // namespace thimble
