#pragma once

namespace thimble::bench {

// Seconds. With one thread its own processor time, which neighbours on a shared machine don't lengthen.
double now();

// What the program's threads reach together, measured here and now: machines are shared and drift.
struct MachinePeaks {
  double int8_gops = 0;  // u8 x s8 dot products, a multiplication and an addition counted as two
  double bf16_gops = 0;  // where there are bf16 products, else as f32
  double f32_gops = 0;
  double read_gbytes = 0;  // 128 MB from 2 MB pages
};
MachinePeaks measure_peaks();

}  // namespace thimble::bench
