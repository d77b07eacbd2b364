#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace thimble {

// What an adapter adds to one linear layer: y = w · x + scale · b · (a · x), and with DoRA each output of that sum
// times magnitude / norm of its row of w + scale · b · a; then the layer's bias.
struct LoraModule {
  int64_t in = 0;
  int64_t out = 0;
  std::vector<float> a;  // [rank, in]
  std::vector<float> b;  // [out, rank]
  std::vector<float> magnitude = {};  // [out] with DoRA; else empty
};

// A low-rank adapter (Hu et al. 2021, arXiv 2106.09685) as PEFT stores it.
struct LoraAdapter {
  int rank = 0;
  float alpha = 0;
  bool rslora = false;                         // Kalajdzievski 2023, arXiv 2312.03732
  bool dora = false;                           // Liu et al. 2024, arXiv 2402.09353
  std::vector<int> layers;                     // numbers of the adapted layers, where not all of the model's are
  std::map<std::string, LoraModule> modules;   // by module path: "model.layers.0.self_attn.q_proj"
  std::string base_name;                       // base_model_name_or_path, as the adapter's maker wrote it
  float dropout = 0;                           // of the training that made it; has no effect afterwards
  std::string manifest;                        // thimble_job.json beside the adapter, unread; may be empty

  float scale() const;  // alpha / rank, or alpha / sqrt(rank)
};

// Reads a PEFT folder: adapter_config.json, adapter_model.safetensors and, where it is there, thimble_job.json.
// Anything that would change the computation beyond the fields above (rank patterns, saved modules, biases,
// an unknown field that is set) throws Error naming it.
LoraAdapter read_adapter(const std::filesystem::path& folder);

// Writes the same files, f32, so that peft loads them; each through AtomicFile, adapter_config.json last, so that a
// folder with a config is a whole adapter. Creates the folder. Throws Error.
void write_adapter(const std::filesystem::path& folder, const LoraAdapter& adapter);

}  // namespace thimble
