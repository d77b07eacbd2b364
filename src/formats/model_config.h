#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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

// Reads config.json of the families "llama" and "gpt2". An unknown model_type, a missing or senseless size, and
// fields that change the computation in a way that isn't supported (activation, sliding window, quantization_config,
// rope types other than default, linear and llama3) throw Error beginning with `place`.
ModelConfig parse_model_config(std::string_view config_json, const std::string& place);

// A config.json from which transformers builds the same model. Family "llama" only; weights are said to be
// `dtype` ("bfloat16"). rope_factors have no place there: llama3_scaling() finds the rule that they came from.
std::string model_config_json(const ModelConfig& config, std::string_view dtype);

// The llama3 rule whose frequency factors are `factors` (GGUF keeps only those), or nullopt where none of the rules
// that Llama 3.1 and 3.2 ship with (factor 8 or 32 over 8,192 tokens) gives them.
std::optional<RopeScaling> llama3_scaling(const std::vector<float>& factors, float rope_theta, int head_dim);
// Its factors: what frequencies of each of the head_dim / 2 pairs are divided by.
std::vector<float> llama3_factors(const RopeScaling& scaling, float rope_theta, int head_dim);

// Sizes that no file of a supported family has (zero or huge, heads that don't divide) throw Error.
void check_model_config(const ModelConfig& config, const std::string& place);

}  // namespace thimble
