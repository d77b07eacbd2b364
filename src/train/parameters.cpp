#include "train/parameters.h"

#include <algorithm>
#include <cassert>

namespace thimble {

std::vector<float> copy_values(std::span<const ParameterTensor> parameters) {
  size_t count = 0;
  for (const ParameterTensor& p : parameters) count += p.values.size();
  std::vector<float> out;
  out.reserve(count);
  for (const ParameterTensor& p : parameters) out.insert(out.end(), p.values.begin(), p.values.end());
  return out;
}

void put_values(std::span<const float> values, std::span<const ParameterTensor> parameters) {
  for (const ParameterTensor& p : parameters) {
    assert(values.size() >= p.values.size());
    std::copy_n(values.begin(), p.values.size(), p.values.begin());
    values = values.subspan(p.values.size());
  }
  assert(values.empty());
}

void zero_gradients(std::span<const ParameterTensor> parameters) {
  for (const ParameterTensor& p : parameters) std::fill(p.gradients.begin(), p.gradients.end(), 0.0f);
}

}  // namespace thimble
