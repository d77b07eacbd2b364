#include "kernels/rope.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <mutex>

#include "core/thread_pool.h"
#include "kernels/simd.h"

namespace thimble {
namespace {

using simd::F32;
using simd::kLanes;

constexpr int64_t kRowsAtOnce = 32;

// direction +1 turns forward, -1 back
void turn(const float* x, int64_t rows, int heads, const int32_t* positions, const RopeTable& table, float* y,
          float direction) {
  if (rows > 0) table.make(*std::max_element(positions, positions + rows) + 1);
  const int64_t head_dim = table.head_dim(), half = head_dim / 2;
  const auto some_rows = [&](int64_t first, int64_t last) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      for (int64_t r = first; r < last; ++r) {
        assert(positions[r] >= 0 && positions[r] < table.positions());
        const float* cosines = table.cosines(positions[r]);
        const float* sines = table.sines(positions[r]);
        for (int64_t h = 0; h < heads; ++h) {
          const float* low = x + (r * heads + h) * head_dim;
          float* out = y + (r * heads + h) * head_dim;
          int64_t i = 0;
          for (; i + kLanes <= half; i += kLanes) {
            const F32 a = simd::load(low + i), b = simd::load(low + half + i);
            const F32 c = simd::load(cosines + i), s = simd::load(sines + i) * direction;
            simd::store(out + i, a * c - b * s);
            simd::store(out + half + i, b * c + a * s);
          }
          for (; i < half; ++i) {
            const float a = low[i], b = low[half + i], s = sines[i] * direction;
            out[i] = a * cosines[i] - b * s;
            out[half + i] = b * cosines[i] + a * s;
          }
        }
      }
    });
  };
  if (rows * heads * head_dim <= 8192) return some_rows(0, rows);
  threads().parallel_for((rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t task, int) {
    some_rows(task * kRowsAtOnce, std::min(rows, (task + 1) * kRowsAtOnce));
  });
}

}  // namespace

struct RopeTable::Made {
  std::mutex mutex;
  std::atomic<int32_t> count{0};
};

RopeTable::RopeTable(std::span<const float> inverse_frequencies, int32_t positions)
    : positions_(positions),
      half_(static_cast<int64_t>(inverse_frequencies.size())),
      frequencies_(inverse_frequencies.begin(), inverse_frequencies.end()),
      values_(static_cast<size_t>(2 * half_ * positions)),
      made_(std::make_shared<Made>()) {}

void RopeTable::make(int32_t count) const {
  assert(count <= positions_);
  if (made_ == nullptr || made_->count.load(std::memory_order_acquire) >= count) return;
  const std::scoped_lock lock(made_->mutex);
  const int64_t first = made_->count.load(std::memory_order_relaxed);
  // Some more than was asked for, so that decoding doesn't come here for every token.
  const int64_t last = std::min<int64_t>(positions_, (int64_t{count} + 255) / 256 * 256);
  if (first >= last) return;
  threads().parallel_for((last - first + 63) / 64, [&](int64_t task, int) {
    for (int64_t p = first + task * 64; p < std::min(last, first + (task + 1) * 64); ++p)
      for (int64_t i = 0; i < half_; ++i) {
        const float angle = static_cast<float>(p) * frequencies_[static_cast<size_t>(i)];
        values_[static_cast<size_t>(p * 2 * half_ + i)] = static_cast<float>(std::cos(static_cast<double>(angle)));
        values_[static_cast<size_t>((p * 2 + 1) * half_ + i)] =
            static_cast<float>(std::sin(static_cast<double>(angle)));
      }
  });
  made_->count.store(static_cast<int32_t>(last), std::memory_order_release);
}

void rope_forward(const float* x, int64_t rows, int heads, const int32_t* positions, const RopeTable& table, float* y) {
  turn(x, rows, heads, positions, table, y, 1);
}

void rope_backward(const float* dy, int64_t rows, int heads, const int32_t* positions, const RopeTable& table,
                   float* dx) {
  turn(dy, rows, heads, positions, table, dx, -1);
}

}  // namespace thimble
