#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "train/lora.h"
#include "train/parameters.h"

namespace thimble {

// What an optimizer step changes of a model. Trainer, optimizer and checkpoint see its parameters alone, whatever
// they are the parameters of.
struct Trainable {
  std::unique_ptr<Lora> lora;

  std::vector<ParameterTensor> parameters() const { return lora->parameters(); }
};

// The same as the ops that compute with it see it; empty: nothing is trained.
struct Trained {
  const Lora* lora = nullptr;

  Trained() = default;
  Trained(std::nullptr_t) {}
  Trained(const Lora* adapter) : lora(adapter) {}
  Trained(const Trainable& trainable) : lora(trainable.lora.get()) {}
  bool any() const { return lora != nullptr; }
};

}  // namespace thimble
