#include "kernels/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "core/buffer.h"
#include "core/thread_pool.h"
#include "kernels/simd.h"

namespace thimble {
namespace {

using simd::F32;
using simd::kLanes;

constexpr int64_t kRowsAtOnce = 32;  // rows a task: also the grain of dweight's sum, so fixed

// 1 / sqrt(mean(x²) + eps)
[[gnu::always_inline]] inline float inverse_rms(const float* x, int64_t cols, float eps) {
  F32 even{}, odd{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= cols; i += 2 * kLanes) {
    const F32 a = simd::load(x + i), b = simd::load(x + i + kLanes);
    even += a * a;
    odd += b * b;
  }
  for (; i < cols; i += kLanes) {
    const F32 a = simd::load(x + i, std::min(kLanes, cols - i));
    even += a * a;
  }
  return 1.0f / __builtin_sqrtf(simd::sum(even + odd) / static_cast<float>(cols) + eps);
}

}  // namespace

void rms_norm_forward(const float* x, const float* weight, int64_t rows, int64_t cols, float eps, float* y) {
  const auto some_rows = [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t r = first; r < last; ++r) {
        const float* xr = x + r * cols;
        float* yr = y + r * cols;
        const float inverse = inverse_rms(xr, cols, eps);
        int64_t i = 0;
        for (; i + kLanes <= cols; i += kLanes)
          simd::store(yr + i, simd::load(xr + i) * inverse * simd::load(weight + i));
        for (; i < cols; ++i) yr[i] = xr[i] * inverse * weight[i];
      }
    });
  };
  if (rows * cols <= 8192) return some_rows(0, rows);
  threads().parallel_for((rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t task, int) {
    some_rows(task * kRowsAtOnce, std::min(rows, (task + 1) * kRowsAtOnce));
  });
}

// With n = x · inverse and g = dy · weight: dx = inverse · (g - n · mean(g · n)), dweight = sum over rows of dy · n.
void rms_norm_backward(const float* x, const float* weight, const float* dy, int64_t rows, int64_t cols, float eps,
                       float* dx, bool accumulate, float* dweight) {
  const int64_t tasks = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
  const Buffer<float> partial(dweight != nullptr ? static_cast<size_t>(tasks * cols) : 0);
  threads().parallel_for(tasks, [&](int64_t task, int) {
    const int64_t first = task * kRowsAtOnce, last = std::min(rows, first + kRowsAtOnce);
    float* dw = dweight != nullptr ? partial.data() + task * cols : nullptr;
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t r = first; r < last; ++r) {
        const float* xr = x + r * cols;
        const float* dyr = dy + r * cols;
        float* dxr = dx + r * cols;
        const float inverse = inverse_rms(xr, cols, eps);
        F32 total{};
        for (int64_t i = 0; i < cols; i += kLanes) {
          const int64_t n = std::min(kLanes, cols - i);
          if (n == kLanes)
            total += simd::load(dyr + i) * simd::load(weight + i) * simd::load(xr + i);
          else
            total += simd::load(dyr + i, n) * simd::load(weight + i, n) * simd::load(xr + i, n);
        }
        const float mean = simd::sum(total) * inverse * inverse * inverse / static_cast<float>(cols);
        int64_t i = 0;
        for (; i + kLanes <= cols; i += kLanes) {
          const F32 xi = simd::load(xr + i), dyi = simd::load(dyr + i);
          if (dw != nullptr) simd::store(dw + i, simd::load(dw + i) + dyi * xi * inverse);
          const F32 d = dyi * simd::load(weight + i) * inverse - xi * mean;
          simd::store(dxr + i, accumulate ? simd::load(dxr + i) + d : d);
        }
        for (; i < cols; ++i) {
          if (dw != nullptr) dw[i] += dyr[i] * xr[i] * inverse;
          const float d = dyr[i] * weight[i] * inverse - xr[i] * mean;
          dxr[i] = accumulate ? dxr[i] + d : d;
        }
      }
    });
  });
  if (dweight == nullptr) return;
  for (int64_t task = 0; task < tasks; ++task)
    for (int64_t i = 0; i < cols; ++i) dweight[i] += partial[static_cast<size_t>(task * cols + i)];
}

}  // namespace thimble
