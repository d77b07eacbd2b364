#pragma once

#include <cstddef>
#include <memory>

namespace thimble {

// What the program's threads reach together at cpu_level(), measured here and now: machines are shared and drift.
struct MachinePeaks {
  double int8_gops = 0;  // u8 x s8 dot products, a multiplication and an addition counted as two
  double bf16_gops = 0;  // where there are bf16 products, else as f32
  double f32_gops = 0;
  double read_gbytes = 0;  // 1e9 bytes a second, from memory allocated as weights are
};

// Holds the memory that is read, so that measuring again costs only the reading.
class PeakProbe {
 public:
  // More than any last-level cache, so that what is read comes from memory.
  explicit PeakProbe(size_t bytes = size_t{256} << 20);
  MachinePeaks measure() const;  // the best of a few runs of each, about a third of a second in all

 private:
  size_t bytes_;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace thimble
