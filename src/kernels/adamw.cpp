#include "kernels/adamw.h"

#include <cmath>
#include <vector>

#include "kernels/elementwise.h"

namespace thimble {

using simd::F32;
using simd::kLanes;

void adamw_step(const AdamWSettings& settings, int64_t step, float gradient_scale, const float* gradients,
                int64_t count, float* parameters, float* m, float* v) {
  const double t = static_cast<double>(step);
  const float step_size =
      static_cast<float>(settings.learning_rate / (1.0 - std::pow(static_cast<double>(settings.beta1), t)));
  const float root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(static_cast<double>(settings.beta2), t)));
  const float keep = 1.0f - settings.learning_rate * settings.weight_decay;
  const float beta1 = settings.beta1, beta2 = settings.beta2, epsilon = settings.epsilon;
  simd::for_pieces(count, [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      // a loop of independent elements that the compiler turns into vectors
      for (int64_t i = first; i < last; ++i) {
        const float g = gradients[i] * gradient_scale;
        m[i] = beta1 * m[i] + (1.0f - beta1) * g;
        v[i] = beta2 * v[i] + (1.0f - beta2) * g * g;
        parameters[i] = parameters[i] * keep - step_size * m[i] / (__builtin_sqrtf(v[i]) * root + epsilon);
      }
    });
  });
}

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
