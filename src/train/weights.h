#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "formats/model_file.h"
#include "kernels/gemm.h"
#include "models/model.h"
#include "train/parameters.h"

namespace thimble {

struct WeightsConfig {
  bool train = false;  // every tensor of the model: linear layers, biases, norms, embeddings, head
  bool master = true;  // false: bf16 alone holds matrices, and steps are rounded stochastically
};

// One of the model's tensors on its way to another value.
struct TrainedTensor {
  std::string name;  // as in the safetensors file: "model.norm.weight"
  std::vector<int64_t> shape;
  std::span<float> values;     // [elements]; empty where bf16 alone holds them
  std::span<float> gradients;  // [elements], added to
  // of values, where products in bf16 read it as a weight, or there is no master copy; else empty
  std::span<uint16_t> bf16;

  Tensor exact() const;   // the values
  Tensor factor() const;  // what products read
};

// A model's own weights, trained: copies of what the model stores, in f32 whatever type that is, and in bf16 besides
// where products read them; without a master copy, matrices in bf16 alone. The model stays as it is.
class Weights {
 public:
  // Takes all tensors of the model, one that two layers share (a tied head) once. Pages of a mapped file are let go as
  // they are copied.
  Weights(const Model& model, GemmPrecision precision, bool master = true);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // What takes the place of a tensor that the model stores; null where that is not trained.
  const TrainedTensor* find(const Tensor& stored) const;
  std::span<const TrainedTensor> tensors() const { return tensors_; }
  std::vector<ParameterTensor> parameters() const;

 private:
  std::vector<TrainedTensor> tensors_;
  std::map<const std::byte*, size_t> by_data_;  // of the stored tensor
  Buffer<float> values_, gradients_;
  Buffer<uint16_t> bf16_;
};

// The file with the trained tensors in the place of its own, to be written or built into a model; it refers to
// `weights`. Tensors that products read are bf16 where the weights have such copies.
ModelFile with_weights(ModelFile base, const Weights& weights);

}  // namespace thimble
