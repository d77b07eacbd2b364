#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "formats/model_config.h"
#include "formats/vocabulary.h"
#include "tensor/tensor.h"

namespace thimble {

// A model as its files hold it, whatever the format. Tensors carry Hugging Face's names
// ("model.layers.0.self_attn.q_proj.weight") and order: GGUF's permuted query and key rows of the Llama family
// are put back, so that adapters fit both. Everything else stays mapped.
struct ModelFile {
  std::filesystem::path path;  // the .gguf file, or the folder
  std::string format;          // "gguf" or "safetensors"
  ModelConfig config;
  Vocabulary vocabulary;
  std::map<std::string, Tensor> tensors;
  // Identifies the weights: sha256 over names, shapes, types and bytes sampled from every tensor (whole where
  // small). An adapter's manifest carries its base's.
  std::string fingerprint;
  std::string manifest;  // thimble_job.json of a model that a job was trained into, unread; empty: none
};

// Opens a .gguf file, a folder with config.json and *.safetensors, or a .safetensors file in such a folder.
// Throws Error for anything truncated, forged, unknown or missing.
ModelFile open_model(const std::filesystem::path& path);

// Only the tokenizer's part: also of GGUF files without weights and of folders that hold just tokenizer files.
Vocabulary open_vocabulary(const std::filesystem::path& path);

}  // namespace thimble
