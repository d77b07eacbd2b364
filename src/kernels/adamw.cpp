#include "kernels/adamw.h"

#include <cmath>

#include "kernels/elementwise.h"

namespace thimble {

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

}  // namespace thimble
