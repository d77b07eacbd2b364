#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "core/cpu.h"
#include "core/thread_pool.h"
#include "kernels/cross_entropy_bf16.h"
#include "kernels/scratch.h"
#include "kernels/simd.h"
#include "kernels/sum_exp.h"

namespace thimble {
namespace {

using simd::F32;
using simd::kLanes;

// logits[vocab] -> weight · (softmax - one-hot of target), in place
[[gnu::always_inline]] inline void gradient(float* logits, int64_t vocab, float lse, int32_t target, float weight) {
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) simd::store(logits + i, simd::exp(simd::load(logits + i) - lse) * weight);
  if (i < vocab) simd::store(logits + i, simd::exp(simd::load(logits + i, vocab - i) - lse) * weight, vocab - i);
  logits[target] -= weight;
}

// Any machine and precision: a slice of f32 logits, turned into their gradient in place.
void with_stored_logits(const CrossEntropy& args, float* row_losses) {
  const int64_t vocab = args.head->rows(), hidden = args.head->cols();
  const int64_t slice = std::clamp<int64_t>(kLogitsBytes / (vocab * 4), 1, std::max<int64_t>(args.rows, 1));
  const Scratch<float> logits(static_cast<size_t>(slice * vocab));
  for (int64_t first = 0; first < args.rows; first += slice) {
    const int64_t rows = std::min(slice, args.rows - first);
    const GemmInput h{args.hidden + first * hidden, rows, hidden};
    linear_forward(args.precision, h, *args.head, logits.data());
    threads().parallel_for(rows, [&](int64_t r, int) {
      float* row = logits.data() + r * vocab;
      const int32_t target = args.targets[first + r];
      assert(target >= 0 && target < vocab);
      const float target_logit = row[target];
      float top = 0, total = 0;
      simd::with_simd([&]() __attribute__((always_inline)) { total = simd::sum_exp(row, vocab, &top); });
      const float log_total = std::log(total);
      row_losses[first + r] = log_total + (top - target_logit);
      if (args.dhidden == nullptr && args.dhead == nullptr) return;
      const float weight = args.row_weights != nullptr ? args.row_weights[first + r] : 1.0f;
      simd::with_simd([&]() __attribute__((always_inline)) { gradient(row, vocab, top + log_total, target, weight); });
    });
    const GemmInput dlogits{logits.data(), rows, vocab};
    if (args.dhidden != nullptr)
      linear_backward_input(args.precision, dlogits, *args.head, args.dhidden + first * hidden);
    if (args.dhead != nullptr) linear_backward_weight(args.precision, dlogits, h, args.dhead, true);
  }
}

}  // namespace

double cross_entropy(const CrossEntropy& args) {
  std::vector<float> losses(static_cast<size_t>(args.rows));
#if defined(__x86_64__)
  if (args.precision == GemmPrecision::kBF16 && cpu_level() >= CpuLevel::kAvx512Bf16 && args.dhead == nullptr)
    cross_entropy_bf16(args, losses.data());
  else
#endif
    with_stored_logits(args, losses.data());
  double loss = 0;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float row_loss = losses[static_cast<size_t>(r)];
    if (args.row_losses != nullptr) args.row_losses[r] = row_loss;
    loss += static_cast<double>(row_loss) * (args.row_weights != nullptr ? args.row_weights[r] : 1.0f);
  }
  return loss;
}

}  // namespace thimble
