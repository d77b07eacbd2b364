#include "kernels/distillation.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/cross_entropy.h"
#include "kernels/scratch.h"
#include "kernels/simd.h"
#include "kernels/sum_exp.h"

namespace thimble {
namespace {

using simd::F32;
using simd::kLanes;

constexpr double kLeastRest = 1e-6;

// Calls step(from, count) for vectors of a row; count is below kLanes for the last one only.
template <class Step>
[[gnu::always_inline]] inline void for_lanes(int64_t vocab, const Step& step) {
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes) step(i, kLanes);
  if (i < vocab) step(i, vocab - i);
}
[[gnu::always_inline]] inline F32 read(const float* p, int64_t n) {
  return n == kLanes ? simd::load(p) : simd::load(p, n);
}
[[gnu::always_inline]] inline void write(float* p, F32 x, int64_t n) {
  if (n == kLanes)
    simd::store(p, x);
  else
    simd::store(p, x, n);
}
// What lies beyond the row reads as probability 0.
[[gnu::always_inline]] inline F32 probability(F32 log_p, int64_t n) {
  F32 p = simd::exp(log_p);
  for (int64_t i = n; i < kLanes; ++i) p[i] = 0;
  return p;
}

float log_sum_exp(const float* logits, int64_t vocab, float scale) {
  float top = 0, total = 0;
  simd::with_simd([&]() __attribute__((always_inline)) { total = simd::sum_exp(logits, vocab, &top, scale); });
  return top + std::log(total);
}

// logits[vocab] -> log-softmax of logits · scale, in place; returns what was taken off
float log_softmax(float* logits, int64_t vocab, float scale) {
  const float lse = log_sum_exp(logits, vocab, scale);
  simd::with_simd([&]() __attribute__((always_inline)) {
    for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      write(logits + i, read(logits + i, n) * scale - lse, n);
    });
  });
  return lse;
}

// Each: log_q[vocab] of the student, log_p[vocab] of the teacher -> divergence; with a gradient, log_p becomes its
// gradient with respect to the student's scaled logits.
double forward_kl(const float* log_q, float* log_p, int64_t vocab, bool gradient) {
  float loss = 0;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 sums{};
    for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      const F32 q = read(log_q + i, n), p = read(log_p + i, n);
      const F32 teacher = probability(p, n);
      sums += teacher * (p - q);
      if (gradient) write(log_p + i, probability(q, n) - teacher, n);
    });
    loss = simd::sum(sums);
  });
  return loss;
}

// The student's divergence from log_p, and where it is asked for q · (log q - log p - divergence) · scale in log_p.
double student_kl(const float* log_q, float* log_p, int64_t vocab, float scale, bool gradient) {
  float loss = 0;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 sums{};
    for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      const F32 q = read(log_q + i, n);
      sums += probability(q, n) * (q - read(log_p + i, n));
    });
    loss = simd::sum(sums);
    if (!gradient) return;
    for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      const F32 q = read(log_q + i, n);
      write(log_p + i, probability(q, n) * (q - read(log_p + i, n) - loss) * scale, n);
    });
  });
  return loss;
}

double jsd(const float* log_q, float* log_p, int64_t vocab, float beta, bool gradient) {
  const Scratch<float> mixture(static_cast<size_t>(vocab));  // its logarithm
  simd::with_simd([&]() __attribute__((always_inline)) {
    for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      write(mixture.data() + i,
            probability(read(log_q + i, n), n) * (1 - beta) + probability(read(log_p + i, n), n) * beta, n);
    });
  });
  for (int64_t i = 0; i < vocab; ++i)  // where both vanish, so does all that is made of it
    mixture[static_cast<size_t>(i)] = std::log(std::max(mixture[static_cast<size_t>(i)], 1e-37f));
  float teacher = 0;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 sums{};
    for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      const F32 p = read(log_p + i, n);
      sums += probability(p, n) * (p - read(mixture.data() + i, n));
    });
    teacher = simd::sum(sums);
  });
  const double student = student_kl(log_q, mixture.data(), vocab, 1 - beta, gradient);
  if (gradient) std::copy_n(mixture.data(), vocab, log_p);
  return beta * teacher + (1 - beta) * student;
}

// Of classes: the saved tokens, and all others as one. slopes[tokens + 1]: derivative by the class's probability.
double class_divergence(const Distillation& args, std::span<const double> q, std::span<const double> p,
                        std::span<double> slopes) {
  double loss = 0;
  for (size_t c = 0; c < q.size(); ++c) {
    const double student = std::max(q[c], 1e-30), teacher = std::max(p[c], 1e-30);
    switch (args.divergence) {
      case Divergence::kForwardKl:
        loss += teacher * std::log(teacher / student);
        slopes[c] = -teacher / student;
        break;
      case Divergence::kReverseKl:
        loss += student * std::log(student / teacher);
        slopes[c] = std::log(student / teacher) + 1;
        break;
      case Divergence::kJsd: {
        const double beta = args.beta, mixture = beta * teacher + (1 - beta) * student;
        loss += beta * teacher * std::log(teacher / mixture) + (1 - beta) * student * std::log(student / mixture);
        slopes[c] = (1 - beta) * std::log(student / mixture);
        break;
      }
    }
  }
  return loss;
}

// log_q[vocab] -> divergence from what was saved; the gradient goes to d[vocab] where it is not null
double saved_divergence(const Distillation& args, const float* log_q, int64_t vocab,
                        std::span<const TeacherToken> teacher, float* d) {
  const size_t known = teacher.size();
  std::vector<double> q(known + 1), p(known + 1), slopes(known + 1);
  double rest = 1;
  for (size_t c = 0; c < known; ++c) {
    q[c] = std::exp(static_cast<double>(log_q[teacher[c].token]));
    p[c] = std::exp(static_cast<double>(teacher[c].log_prob));
    rest -= p[c];
  }
  p[known] = std::max(rest, kLeastRest);
  // The others' sum is added up, not what is left of one, which rounding would swallow.
  float others = 0;
  const Scratch<float> probabilities(static_cast<size_t>(vocab));
  simd::with_simd([&]() __attribute__((always_inline)) {
    for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      write(probabilities.data() + i, probability(read(log_q + i, n), n), n);
    });
  });
  for (const TeacherToken& t : teacher) probabilities[static_cast<size_t>(t.token)] = 0;
  simd::with_simd([&]() __attribute__((always_inline)) {
    F32 sums{};
    for_lanes(vocab, [&](int64_t i, int64_t n)
                         __attribute__((always_inline)) { sums += read(probabilities.data() + i, n); });
    others = simd::sum(sums);
  });
  q[known] = others;
  const double loss = class_divergence(args, q, p, slopes);
  if (d == nullptr) return loss;
  double mean = 0;
  for (size_t c = 0; c <= known; ++c) mean += q[c] * slopes[c];
  const auto common = static_cast<float>(slopes[known] - mean);
  for (int64_t i = 0; i < vocab; ++i) d[i] = probabilities[static_cast<size_t>(i)] * common;
  for (size_t c = 0; c < known; ++c) d[teacher[c].token] = static_cast<float>(q[c] * (slopes[c] - mean));
  return loss;
}

// The loss of one row. logits[vocab] becomes its gradient where that is wanted; teacher[vocab] holds the teacher's
// logits, or is scratch.
double row_loss(const Distillation& args, int64_t row, float* logits, float* teacher, int64_t vocab, bool gradient) {
  const int32_t target = args.targets[row];
  assert(target >= 0 && target < vocab);
  const float gold = 1 - args.weight, scale = 1 / args.temperature, target_logit = logits[target];
  float lse = scale == 1 ? 0 : log_sum_exp(logits, vocab, 1);  // at temperature 1
  const float taken = log_softmax(logits, vocab, scale);
  if (scale == 1) lse = taken;
  double divergence = 0;
  if (!args.saved.empty()) {
    const auto saved = args.saved[static_cast<size_t>(row)];
    divergence = saved_divergence(args, logits, vocab, saved, gradient ? teacher : nullptr);
  } else {
    log_softmax(teacher, vocab, scale);
    divergence = args.divergence == Divergence::kForwardKl   ? forward_kl(logits, teacher, vocab, gradient)
                 : args.divergence == Divergence::kReverseKl ? student_kl(logits, teacher, vocab, 1, gradient)
                                                             : jsd(logits, teacher, vocab, args.beta, gradient);
  }
  const float weight = args.row_weights[row];
  const double cross_entropy = lse - target_logit;
  if (gradient) {
    simd::with_simd([&]() __attribute__((always_inline)) {
      for_lanes(vocab, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        const F32 original = (read(logits + i, n) + taken) * args.temperature;
        write(logits + i,
              read(teacher + i, n) * (weight * args.weight * scale) + simd::exp(original - lse) * (weight * gold), n);
      });
    });
    logits[target] -= weight * gold;
  }
  return weight * (args.weight * divergence + gold * cross_entropy);
}

}  // namespace

double distillation(const Distillation& args) {
  const int64_t vocab = args.head->rows(), hidden = args.head->cols();
  const bool gradient = args.dhidden != nullptr || args.dhead != nullptr, live = args.saved.empty();
  const int64_t slice = std::clamp<int64_t>(kLogitsBytes / (vocab * 8), 1, std::max<int64_t>(args.rows, 1));
  const Scratch<float> logits(static_cast<size_t>(slice * vocab)), teacher(static_cast<size_t>(slice * vocab));
  std::vector<double> losses(static_cast<size_t>(args.rows));
  for (int64_t first = 0; first < args.rows; first += slice) {
    const int64_t rows = std::min(slice, args.rows - first);
    const GemmInput h{args.hidden + first * hidden, rows, hidden};
    linear_forward(args.precision, h, *args.head, logits.data());
    if (live) {
      const int64_t width = args.teacher_head->cols();
      linear_forward(args.precision, {args.teacher_hidden + first * width, rows, width}, *args.teacher_head,
                     teacher.data());
    }
    threads().parallel_for(rows, [&](int64_t r, int) {
      losses[static_cast<size_t>(first + r)] =
          row_loss(args, first + r, logits.data() + r * vocab, teacher.data() + r * vocab, vocab, gradient);
    });
    const GemmInput dlogits{logits.data(), rows, vocab};
    if (args.dhidden != nullptr)
      linear_backward_input(args.precision, dlogits, *args.head, args.dhidden + first * hidden);
    if (args.dhead != nullptr) linear_backward_weight(args.precision, dlogits, h, args.dhead, true);
  }
  double loss = 0;
  for (const double row : losses) loss += row;
  return loss;
}

}  // namespace thimble
