#pragma once

#include <cstdint>

#include "kernels/gemm.h"
#include "tensor/tensor.h"

namespace thimble {

// Most memory that logits ever take in training: they are held for a slice of the rows at a time.
inline constexpr int64_t kLogitsBytes = int64_t{64} << 20;

// Softmax cross-entropy fused with the head, so that logits are only ever held for a slice of the rows: loss = sum over rows of weight · (log sum exp(logits) - logits[target]), logits = hidden · headᵀ.
struct CrossEntropy {
  GemmPrecision precision = GemmPrecision::kBF16;
  const float* hidden = nullptr;  // [rows, hidden]: the trained rows only
  int64_t rows = 0;
  const int32_t* targets = nullptr;    // [rows], in [0, vocab)
  const float* row_weights = nullptr;  // [rows], or null for 1; normalise here, over the optimiser's step
  const Tensor* head = nullptr;        // [vocab, hidden], any element type
  float* row_losses = nullptr;         // [rows], not weighted, or null
  float* dhidden = nullptr;            // [rows, hidden], written; null where only the loss is wanted
  float* dhead = nullptr;              // [vocab, hidden], added to; null where the head is frozen
};
double cross_entropy(const CrossEntropy& args);  // returns the loss

}  // namespace thimble
