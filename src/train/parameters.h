#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace thimble {

// A tensor that training changes, and where its gradients add up.
struct ParameterTensor {
  std::string name;
  std::span<float> values;  // empty where bf16 alone holds them
  std::span<float> gradients;
  std::span<uint16_t> bf16 = {};  // of the values, for products; may be empty. Made again with every change of them
  float rate = 1;                 // its learning rate, as a multiple of the run's

  size_t size() const { return gradients.size(); }
};

// All values, one tensor after the other, to be put back later: exact, also where bf16 holds them.
std::vector<float> copy_values(std::span<const ParameterTensor> parameters);
void put_values(std::span<const float> values, std::span<const ParameterTensor> parameters);

// To be called where values were changed by other means than those here: makes their bf16 copies again.
void round_values(std::span<const ParameterTensor> parameters);

void zero_gradients(std::span<const ParameterTensor> parameters);

}  // namespace thimble
