#include "train/train_work.h"

namespace thimble {

double step_operations(const Model& model, const Trainable& trainable, int64_t tokens, int64_t trained_tokens) {
  double layers = 0, adapter = 0;
  for (const Linear& linear : model.linears)
    if (&linear != model.head) layers += static_cast<double>(linear.weight.elements());
  if (trainable.lora != nullptr)
    for (const ParameterTensor& p : trainable.lora->parameters()) adapter += static_cast<double>(p.values.size());
  const double products = trainable.weights != nullptr ? 6 : 4;
  return (products * layers + 6 * adapter) * static_cast<double>(tokens) +
         products * static_cast<double>(model.head->weight.elements()) * static_cast<double>(trained_tokens);
}

}  // namespace thimble
