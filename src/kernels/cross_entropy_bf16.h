#pragma once

#include "kernels/cross_entropy.h"

namespace thimble {

// The loss on bfloat16 units (CpuLevel::kAvx512Bf16), for a frozen head: writes every row's loss (not weighted) and,
// where it is asked for, dhidden. Logits stay in registers and caches: a slice holds exp(logit - largest of its block)
// in f16, from which the gradient needs only a factor a block.
void cross_entropy_bf16(const CrossEntropy& args, float* row_losses);

}  // namespace thimble
