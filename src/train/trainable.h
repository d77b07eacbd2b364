#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "train/lora.h"
#include "train/parameters.h"
#include "train/weights.h"

namespace thimble {

// What an optimizer step changes of a model: an adapter or the weights themselves. Trainer, optimizer and checkpoint
// see its parameters alone, whatever they are the parameters of.
struct Trainable {
  std::unique_ptr<Lora> lora;
  std::unique_ptr<Weights> weights;

  std::vector<ParameterTensor> parameters() const {
    std::vector<ParameterTensor> out = lora != nullptr ? lora->parameters() : std::vector<ParameterTensor>();
    if (weights != nullptr)
      for (ParameterTensor& p : weights->parameters()) out.push_back(std::move(p));
    return out;
  }
};

// The same as the ops that compute with it see it; empty: nothing is trained.
struct Trained {
  const Lora* lora = nullptr;
  const Weights* weights = nullptr;

  Trained() = default;
  Trained(std::nullptr_t) {}
  Trained(const Lora* adapter) : lora(adapter) {}
  Trained(const Weights* tensors) : weights(tensors) {}
  Trained(const Trainable& trainable) : lora(trainable.lora.get()), weights(trainable.weights.get()) {}
  bool any() const { return lora != nullptr || weights != nullptr; }
  const TrainedTensor* find(const Tensor& stored) const { return weights == nullptr ? nullptr : weights->find(stored); }
};

}  // namespace thimble
