#pragma once

#include <cstdint>

namespace thimble {

struct AdamWSettings {
  float learning_rate = 1e-3f;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
};

// One step of AdamW with decoupled decay (Loshchilov and Hutter 2019, arXiv 1711.05101), as torch.optim.AdamW has it.
// parameters, gradients, m, v [count]; step counts from 1; gradients are multiplied by gradient_scale (clipping).
void adamw_step(const AdamWSettings& settings, int64_t step, float gradient_scale, const float* gradients,
                int64_t count, float* parameters, float* m, float* v);

}  // namespace thimble
