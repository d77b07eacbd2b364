#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "formats/adapter.h"
#include "kernels/lora.h"
#include "models/model.h"
#include "train/parameters.h"

namespace thimble {

// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): a chosen linear layer adds scale · b · (a · x).
struct LoraConfig {
  int rank = 16;
  float alpha = 32;     // scale = alpha / rank
  bool rslora = false;  // scale = alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732)
  float plus = 1;       // b's learning rate as a multiple of a's: LoRA+ (Hayou et al. 2024, arXiv 2402.12354)
  float dropout = 0;    // of a's input, in training
  bool dora = false;    // outputs are stretched to trained lengths (kernels/dora.h)
  std::vector<std::string> targets = {"all-linear"};  // or last parts of layer names: "q_proj", "down_proj"
  std::vector<int> layers;                            // numbers of the layers that are adapted; empty: all

  float scale() const;
};

// One adapted layer; the matrices stand in the adapter's own storage.
struct LoraLayer {
  const Linear* linear = nullptr;
  int64_t rank = 0;
  float* a = nullptr;   // [rank, in]
  float* b = nullptr;   // [out, rank]
  float* da = nullptr;  // gradients, added to
  float* db = nullptr;
  // DoRA; null in plain LoRA
  float* magnitude = nullptr;      // [out]
  float* dmagnitude = nullptr;     // its gradient
  const float* squares = nullptr;  // [out] of the frozen rows, summed
};

// A trainable adapter of a model.
class Lora {
 public:
  // a is Kaiming-uniform with a = sqrt(5), which is uniform within 1 / sqrt(in), and b zero, as PEFT starts them.
  // DoRA's magnitudes are the norms of the frozen rows. "all-linear" adapts every linear layer but the head. Throws
  // Error for a target or number that no layer has, for the head, and for a rank, scale or dropout out of range.
  Lora(const Model& model, LoraConfig config, uint64_t seed);
  Lora(const Lora&) = delete;
  Lora& operator=(const Lora&) = delete;

  const LoraConfig& config() const { return config_; }
  const std::vector<LoraLayer>& layers() const { return layers_; }
  const LoraLayer* find(const Linear& linear) const;  // null where the layer is not adapted
  LowRank low_rank(const LoraLayer& layer) const { return {layer.a, layer.b, layer.rank, config_.scale()}; }

  std::span<float> values() const { return values_; }        // of all layers, a, b, magnitude, in the model's order
  std::span<float> gradients() const { return gradients_; }  // the same places
  std::vector<ParameterTensor> parameters() const;           // "<layer>.lora_A", "…lora_B", "…lora_magnitude_vector"

 private:
  LoraConfig config_;
  Buffer<float> values_;
  Buffer<float> gradients_;
  Buffer<float> squares_;
  std::vector<LoraLayer> layers_;
  std::vector<int> by_linear_;  // index of the adapted layer, -1 where none
};

// The linear layers that targets and layer numbers choose, in the model's order. Throws Error as Lora's constructor
// does.
std::vector<const Linear*> lora_targets(const Model& model, const LoraConfig& config);

// To and from the form that is stored. from_adapter copies the values; it throws Error where the adapter is for
// other layers, another rank, another method or other shapes, or has another scale.
LoraConfig lora_config(const LoraAdapter& adapter);  // that its Lora has
LoraAdapter to_adapter(const Lora& lora, const std::string& base_name);
void from_adapter(const LoraAdapter& adapter, const Lora& lora);

}  // namespace thimble
