#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace thimble {

// Llama 3's frequency scaling ("rope_type": "llama3"), or linear scaling where only factor is set.
struct RopeScaling {
  std::string type;  // "linear" or "llama3"
  float factor = 1;
  float low_freq_factor = 1;
  float high_freq_factor = 4;
  int original_context = 8192;
};

// A model's shape, from config.json or GGUF metadata, in one vocabulary: that of config.json.
struct ModelConfig {
  std::string family;  // config.json's model_type, GGUF's general.architecture: "llama", "gpt2"
  int vocab = 0;
  int hidden = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn = 0;      // width inside the MLP
  int context = 0;  // longest sequence that the model was trained for
  float norm_eps = 1e-5f;
  float rope_theta = 10000.0f;
  std::optional<RopeScaling> rope_scaling;
  std::vector<float> rope_factors;  // GGUF's rope_freqs.weight: frequencies are divided by these; else empty
  bool tied_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
};

}  // namespace thimble
