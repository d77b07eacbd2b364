#include "train/parameters.h"

#include <algorithm>
#include <cassert>

#include "kernels/gemm.h"

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
  round_values(parameters);
}

void round_values(std::span<const ParameterTensor> parameters) {
  for (const ParameterTensor& p : parameters)
    if (!p.bf16.empty()) convert_to_bf16(p.values.data(), static_cast<int64_t>(p.values.size()), p.bf16.data());
}

void zero_gradients(std::span<const ParameterTensor> parameters) {
  for (const ParameterTensor& p : parameters) std::fill(p.gradients.begin(), p.gradients.end(), 0.0f);
}

}  // namespace thimble
