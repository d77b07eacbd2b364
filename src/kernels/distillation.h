#pragma once

#include <cstdint>
#include <span>

#include "kernels/gemm.h"
#include "tensor/tensor.h"

namespace thimble {

enum class Divergence {
  kForwardKl,  // KL(teacher || student) (Hinton et al. 2015, arXiv 1503.02531)
  kReverseKl,  // KL(student || teacher) (Gu et al. 2023, arXiv 2306.08543)
  kJsd,        // beta KL(teacher || mixture) + (1 - beta) KL(student || mixture), mixture = beta teacher + (1 - beta)
               // student (Agarwal et al. 2023, arXiv 2306.13649)
};

// One of the likeliest tokens of a teacher.
struct TeacherToken {
  int32_t token = 0;
  float log_prob = 0;
};

// Learning a teacher's distribution of the next token, fused with the heads, so that logits are only ever held for a
// slice of the rows (at most 64 MB of both models together): loss = sum over rows of row_weight · (weight · divergence
// + (1 - weight) · cross-entropy of the target). The divergence is of the distributions at `temperature`, as in TRL's
// GKDTrainer (not multiplied by its square); the cross-entropy is at 1.
struct Distillation {
  GemmPrecision precision = GemmPrecision::kBF16;
  Divergence divergence = Divergence::kForwardKl;
  float beta = 0.5f;  // of kJsd, above 0 and below 1
  float temperature = 1;
  float weight = 1;

  const float* hidden = nullptr;  // [rows, hidden]: the trained rows only
  int64_t rows = 0;
  const int32_t* targets = nullptr;    // [rows], in [0, vocab)
  const float* row_weights = nullptr;  // [rows]
  const Tensor* head = nullptr;        // [vocab, hidden], any element type
  // The teacher: either its hidden states and head, of the same vocabulary ...
  const float* teacher_hidden = nullptr;  // [rows, teacher's hidden]
  const Tensor* teacher_head = nullptr;   // [vocab, teacher's hidden]
  // ... or what was saved of it, at temperature 1: each row's likeliest tokens. All others are one class to both
  // models, whose probability in the teacher is taken to be at least 1e-6.
  std::span<const std::span<const TeacherToken>> saved;  // [rows]

  float* dhidden = nullptr;  // [rows, hidden], written; null where only the loss is wanted
  float* dhead = nullptr;    // [vocab, hidden], added to; null where the head is frozen
};
double distillation(const Distillation& args);  // returns the loss

}  // namespace thimble
