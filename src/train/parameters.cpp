#include "train/parameters.h"

#include <algorithm>
#include <cassert>

#include "kernels/gemm.h"
#include "tensor/half.h"

namespace thimble {

std::vector<float> copy_values(std::span<const ParameterTensor> parameters) {
  size_t count = 0;
  for (const ParameterTensor& p : parameters) count += p.size();
  std::vector<float> out;
  out.reserve(count);
  for (const ParameterTensor& p : parameters) {
    out.insert(out.end(), p.values.begin(), p.values.end());
    if (p.values.empty())
      for (const uint16_t bits : p.bf16) out.push_back(bf16_to_f32(bits));
  }
  return out;
}

void put_values(std::span<const float> values, std::span<const ParameterTensor> parameters) {
  for (const ParameterTensor& p : parameters) {
    assert(values.size() >= p.size());
    if (p.values.empty())
      convert_to_bf16(values.data(), static_cast<int64_t>(p.size()), p.bf16.data());
    else
      std::copy_n(values.begin(), p.size(), p.values.begin());
    values = values.subspan(p.size());
  }
  assert(values.empty());
  round_values(parameters);
}

void round_values(std::span<const ParameterTensor> parameters) {
  for (const ParameterTensor& p : parameters)
    if (!p.bf16.empty() && !p.values.empty())
      convert_to_bf16(p.values.data(), static_cast<int64_t>(p.values.size()), p.bf16.data());
}

void zero_gradients(std::span<const ParameterTensor> parameters) {
  for (const ParameterTensor& p : parameters) std::fill(p.gradients.begin(), p.gradients.end(), 0.0f);
}

}  // namespace thimble
