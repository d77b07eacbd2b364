#include "kernels/layer_norm.h"

#include <algorithm>

#include "core/buffer.h"
#include "core/thread_pool.h"
#include "kernels/simd.h"

namespace thimble {
namespace {

using simd::F32;
using simd::kLanes;

constexpr int64_t kRowsAtOnce = 32;  // rows a task: also the grain of the parameters' sums, so fixed

struct Moments {
  float mean;
  float inverse;  // 1 / sqrt(var + eps)
};

[[gnu::always_inline]] inline Moments moments(const float* x, int64_t cols, float eps) {
  F32 total{};
  for (int64_t i = 0; i < cols; i += kLanes)
    total += i + kLanes <= cols ? simd::load(x + i) : simd::load(x + i, cols - i);
  const float mean = simd::sum(total) / static_cast<float>(cols);
  F32 squares{};
  int64_t i = 0;
  for (; i + kLanes <= cols; i += kLanes) {
    const F32 d = simd::load(x + i) - mean;
    squares += d * d;
  }
  float square = simd::sum(squares);
  for (; i < cols; ++i) square += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0f / __builtin_sqrtf(square / static_cast<float>(cols) + eps)};
}

}  // namespace

void layer_norm_forward(const float* x, const float* weight, const float* bias, int64_t rows, int64_t cols, float eps,
                        float* y) {
  const auto some_rows = [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t r = first; r < last; ++r) {
        const float* xr = x + r * cols;
        float* yr = y + r * cols;
        const Moments m = moments(xr, cols, eps);
        int64_t i = 0;
        for (; i + kLanes <= cols; i += kLanes) {
          const F32 n = (simd::load(xr + i) - m.mean) * m.inverse * simd::load(weight + i);
          simd::store(yr + i, bias != nullptr ? n + simd::load(bias + i) : n);
        }
        for (; i < cols; ++i) yr[i] = (xr[i] - m.mean) * m.inverse * weight[i] + (bias != nullptr ? bias[i] : 0.0f);
      }
    });
  };
  if (rows * cols <= 8192) return some_rows(0, rows);
  threads().parallel_for((rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t task, int) {
    some_rows(task * kRowsAtOnce, std::min(rows, (task + 1) * kRowsAtOnce));
  });
}

// With n = (x - mean) · inverse and g = dy · weight: dx = inverse · (g - mean(g) - n · mean(g · n)),
// dweight = sum over rows of dy · n, dbias = sum over rows of dy.
void layer_norm_backward(const float* x, const float* weight, const float* dy, int64_t rows, int64_t cols, float eps,
                         float* dx, bool accumulate, float* dweight, float* dbias) {
  const int64_t tasks = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
  const Buffer<float> dweights(dweight != nullptr ? static_cast<size_t>(tasks * cols) : 0);
  const Buffer<float> dbiases(dbias != nullptr ? static_cast<size_t>(tasks * cols) : 0);
  threads().parallel_for(tasks, [&](int64_t task, int) {
    const int64_t first = task * kRowsAtOnce, last = std::min(rows, first + kRowsAtOnce);
    float* dw = dweight != nullptr ? dweights.data() + task * cols : nullptr;
    float* db = dbias != nullptr ? dbiases.data() + task * cols : nullptr;
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t r = first; r < last; ++r) {
        const float* xr = x + r * cols;
        const float* dyr = dy + r * cols;
        float* dxr = dx + r * cols;
        const Moments m = moments(xr, cols, eps);
        F32 sum_g{}, sum_gn{};
        int64_t i = 0;
        for (; i + kLanes <= cols; i += kLanes) {
          const F32 g = simd::load(dyr + i) * simd::load(weight + i);
          sum_g += g;
          sum_gn += g * (simd::load(xr + i) - m.mean);
        }
        float mean_g = simd::sum(sum_g), mean_gn = simd::sum(sum_gn);
        for (; i < cols; ++i) {
          mean_g += dyr[i] * weight[i];
          mean_gn += dyr[i] * weight[i] * (xr[i] - m.mean);
        }
        mean_g /= static_cast<float>(cols);
        mean_gn *= m.inverse / static_cast<float>(cols);
        for (i = 0; i + kLanes <= cols; i += kLanes) {
          const F32 n = (simd::load(xr + i) - m.mean) * m.inverse, dyi = simd::load(dyr + i);
          if (dw != nullptr) simd::store(dw + i, simd::load(dw + i) + dyi * n);
          if (db != nullptr) simd::store(db + i, simd::load(db + i) + dyi);
          const F32 d = (dyi * simd::load(weight + i) - mean_g - n * mean_gn) * m.inverse;
          simd::store(dxr + i, accumulate ? simd::load(dxr + i) + d : d);
        }
        for (; i < cols; ++i) {
          const float n = (xr[i] - m.mean) * m.inverse;
          if (dw != nullptr) dw[i] += dyr[i] * n;
          if (db != nullptr) db[i] += dyr[i];
          const float d = (dyr[i] * weight[i] - mean_g - n * mean_gn) * m.inverse;
          dxr[i] = accumulate ? dxr[i] + d : d;
        }
      }
    });
  });
  for (int64_t task = 0; task < tasks; ++task)
    for (int64_t i = 0; i < cols; ++i) {
      if (dweight != nullptr) dweight[i] += dweights[static_cast<size_t>(task * cols + i)];
      if (dbias != nullptr) dbias[i] += dbiases[static_cast<size_t>(task * cols + i)];
    }
}

}  // namespace thimble
