#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/random.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "tensor/quantize.h"

namespace thimble::test {

// A llama of two layers: hidden 64, 4 heads of 16 over 2 key heads, MLP 96, vocabulary 40. Random f32 weights
// under Hugging Face's names, the same on every machine.
inline std::vector<TensorSource> tiny_weights(DType type = DType::kF32, bool tied = true) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = {{"model.embed_tokens.weight", {40, 64}},
                                                                      {"model.norm.weight", {64}}};
  for (int i = 0; i < 2; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    shapes.insert(shapes.end(), {{at + "input_layernorm.weight", {64}},
                                 {at + "post_attention_layernorm.weight", {64}},
                                 {at + "self_attn.q_proj.weight", {64, 64}},
                                 {at + "self_attn.k_proj.weight", {32, 64}},
                                 {at + "self_attn.v_proj.weight", {32, 64}},
                                 {at + "self_attn.o_proj.weight", {64, 64}},
                                 {at + "mlp.gate_proj.weight", {96, 64}},
                                 {at + "mlp.up_proj.weight", {96, 64}},
                                 {at + "mlp.down_proj.weight", {64, 96}}});
  }
  if (!tied) shapes.push_back({"lm_head.weight", {40, 64}});
  Random random(11);
  std::vector<TensorSource> out;
  for (auto& [name, shape] : shapes) {
    int64_t elements = 1;
    for (const int64_t d : shape) elements *= d;
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(elements));
    for (float& v : *values) v = 0.2f * random.normal() + (shape.size() == 1 ? 1.0f : 0.0f);
    const DType stored = shape.size() == 1 ? DType::kF32 : type;
    out.push_back({name, stored, shape, [values, stored](const WriteBytes& write) {
                     std::vector<std::byte> bytes(dtype_bytes(stored, static_cast<int64_t>(values->size())));
                     quantize_row(stored, values->data(), static_cast<int64_t>(values->size()), bytes.data());
                     write(bytes.data(), bytes.size());
                   }});
  }
  return out;
}

inline const char* kTinyConfig = R"({"model_type": "llama", "vocab_size": 40, "hidden_size": 64,
 "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": true})";

inline void write_tiny_folder(const std::filesystem::path& folder, const std::string& config = kTinyConfig,
                              DType type = DType::kF32) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", config);
  write_safetensors(folder / "model.safetensors", tiny_weights(type));
}

inline std::vector<GgufEntry> tiny_metadata() {
  return {{"general.architecture", std::string("llama")},
          {"llama.block_count", uint32_t{2}},
          {"llama.context_length", uint32_t{128}},
          {"llama.embedding_length", uint32_t{64}},
          {"llama.feed_forward_length", uint32_t{96}},
          {"llama.attention.head_count", uint32_t{4}},
          {"llama.attention.head_count_kv", uint32_t{2}},
          {"llama.attention.layer_norm_rms_epsilon", 1e-5f},
          {"llama.rope.freq_base", 10000.0f}};
}

}  // namespace thimble::test
