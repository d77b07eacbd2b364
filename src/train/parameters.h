#pragma once

#include <span>
#include <string>
#include <vector>

namespace thimble {

// A tensor that training changes, and where its gradients add up.
struct ParameterTensor {
  std::string name;
  std::span<float> values;
  std::span<float> gradients;
};

// All values, one tensor after the other, to be put back later.
std::vector<float> copy_values(std::span<const ParameterTensor> parameters);
void put_values(std::span<const float> values, std::span<const ParameterTensor> parameters);

void zero_gradients(std::span<const ParameterTensor> parameters);

}  // namespace thimble
