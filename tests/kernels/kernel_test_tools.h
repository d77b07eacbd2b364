#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/cpu.h"
#include "core/random.h"
#include "tensor/quantize.h"
#include "tensor/tensor.h"

namespace thimble::test {

// Norm of the difference over the norm: the measure of every kernel against its reference.
inline double relative_difference(const float* a, const float* expected, int64_t count) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(expected[i]);
    difference += d * d;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return std::sqrt(difference /
                   std::max(norm, 1e-4 * static_cast<double>(count)));  // where the truth is 0, what is small is right
}

inline std::vector<float> random_floats(int64_t count, Random& random) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = random.normal();
  return values;
}

// A stored matrix with its bytes. K types get random codes, so that every one comes up, and sane scales.
struct StoredMatrix {
  std::vector<std::byte> bytes;
  Tensor tensor;
};
inline StoredMatrix stored_matrix(DType type, int64_t rows, int64_t cols, Random& random) {
  StoredMatrix m;
  const size_t row_bytes = dtype_bytes(type, cols);
  m.bytes.resize(row_bytes * static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) {
    std::byte* row = m.bytes.data() + static_cast<size_t>(r) * row_bytes;
    if (type < DType::kQ4_K) {
      quantize_row(type, random_floats(cols, random).data(), cols, row);
      continue;
    }
    for (size_t i = 0; i < row_bytes; ++i) row[i] = static_cast<std::byte>(random.below(256));
    const auto block_bytes = static_cast<size_t>(dtype_info(type).block_bytes);
    for (size_t b = 0; b < row_bytes; b += block_bytes) {  // f16 fields: 0x1c00 is 2^-8
      std::byte* scale = row + b + (type == DType::kQ6_K ? block_bytes - 2 : 0);
      scale[0] = std::byte{0};
      scale[1] = std::byte{0x1c};
      if (type == DType::kQ6_K) continue;
      scale[2] = std::byte{0};
      scale[3] = std::byte{0x1c};
    }
  }
  m.tensor = {type, {rows, cols}, m.bytes.data(), nullptr};
  return m;
}

// Runs every case with each instruction set that this machine has, and puts the old choice back.
class EachCpu {
 public:
  EachCpu() : before_(cpu_level()) {}
  ~EachCpu() { force_cpu(before_); }
  template <class Body>
  void run(const Body& body) {
    for (const CpuLevel level : cpu_levels()) {
      force_cpu(level);
      body(level);
    }
  }

 private:
  CpuLevel before_;
};

}  // namespace thimble::test
