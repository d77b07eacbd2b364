#include "kernels/elementwise.h"

#include <vector>

namespace thimble {

using simd::kLanes;

double squared_norm(const float* x, int64_t count) {
  constexpr int64_t kPiece = 16384;
  std::vector<double> sums(static_cast<size_t>((count + kPiece - 1) / kPiece));
  threads().parallel_for(static_cast<int64_t>(sums.size()), [&](int64_t task, int) {
    double lanes[8] = {};
    const int64_t first = task * kPiece, last = std::min(count, first + kPiece);
    double* out = &sums[static_cast<size_t>(task)];
    simd::with_simd([&]() __attribute__((always_inline)) {
      int64_t i = first;
      for (; i + 8 <= last; i += 8)
        for (int64_t l = 0; l < 8; ++l) lanes[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
      for (; i < last; ++i) lanes[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      for (double lane : lanes) *out += lane;
    });
  });
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

void scale_values(float* x, int64_t count, float factor) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t i = first; i < last; ++i) x[i] *= factor;
    });
  });
}

void add_values(const float* a, const float* b, int64_t count, float* y) {
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      int64_t i = first;
      for (; i + kLanes <= last; i += kLanes) simd::store(y + i, simd::load(a + i) + simd::load(b + i));
      for (; i < last; ++i) y[i] = a[i] + b[i];
    });
  });
}

}  // namespace thimble
