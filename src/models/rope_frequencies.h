#pragma once

#include <vector>

#include "formats/model_config.h"

namespace thimble {

// theta^(-2i / head_dim) for i in [0, head_dim / 2), with the config's scaling applied
// (Su et al. 2021, arXiv 2104.09864; Llama 3's scaling as transformers' modeling_rope_utils has it).
std::vector<float> rope_frequencies(const ModelConfig& config);

}  // namespace thimble
