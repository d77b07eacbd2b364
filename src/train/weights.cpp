#include "train/weights.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/thread_pool.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

void widen(const Tensor& stored, float* to) {
  const int64_t cols = stored.cols();
  threads().parallel_for(stored.rows(), [&](int64_t row, int) {
    dequantize_row(stored.type, stored.row(row), cols, to + row * cols);
  });
}

template <class T>
std::span<T> next(const Buffer<T>& buffer, size_t& at, int64_t count) {
  const std::span<T> out = buffer.span().subspan(at, static_cast<size_t>(count));
  at += out.size();
  return out;
}

}  // namespace

Tensor TrainedTensor::exact() const {
  if (values.empty()) return factor();
  return {DType::kF32, shape, reinterpret_cast<const std::byte*>(values.data()), nullptr};
}

Tensor TrainedTensor::factor() const {
  if (bf16.empty()) return exact();
  return {DType::kBF16, shape, reinterpret_cast<const std::byte*>(bf16.data()), nullptr};
}

Weights::Weights(const Model& model, GemmPrecision precision, bool master) {
  struct Stored {
    std::string name;
    const Tensor* tensor;
    bool is_factor;
    bool has_values = true;
  };
  std::vector<Stored> all;
  const auto add = [&](std::string name, const Tensor& tensor, bool is_factor) {
    if (tensor.empty()) return;
    const auto [known, is_new] = by_data_.try_emplace(tensor.data, all.size());
    if (is_new) all.push_back({std::move(name), &tensor, false});
    all[known->second].is_factor |= is_factor && precision == GemmPrecision::kBF16;
  };
  for (const Param& param : model.params) add(param.name, param.value, false);
  for (const Linear& linear : model.linears) {
    add(linear.name + ".weight", linear.weight, true);
    add(linear.name + ".bias", linear.bias, false);
  }
  if (!master)
    for (Stored& stored : all)
      if (stored.tensor->shape.size() > 1) stored.is_factor = true, stored.has_values = false;
  int64_t count = 0, kept = 0, factors = 0;
  for (const Stored& stored : all) {
    count += stored.tensor->elements();
    kept += stored.has_values ? stored.tensor->elements() : 0;
    factors += stored.is_factor ? stored.tensor->elements() : 0;
  }
  values_ = Buffer<float>(static_cast<size_t>(kept));
  gradients_ = Buffer<float>(static_cast<size_t>(count));
  bf16_ = Buffer<uint16_t>(static_cast<size_t>(factors));
  size_t value = 0, gradient = 0, half = 0;
  for (const Stored& stored : all) {
    const int64_t elements = stored.tensor->elements();
    TrainedTensor& tensor = tensors_.emplace_back();
    tensor.name = stored.name;
    tensor.shape = stored.tensor->shape;
    tensor.values = next(values_, value, stored.has_values ? elements : 0);
    tensor.gradients = next(gradients_, gradient, elements);
    tensor.bf16 = next(bf16_, half, stored.is_factor ? elements : 0);
    Buffer<float> wide(static_cast<size_t>(stored.has_values ? 0 : elements));
    float* const values = stored.has_values ? tensor.values.data() : wide.data();
    widen(*stored.tensor, values);
    if (stored.is_factor) convert_to_bf16(values, elements, tensor.bf16.data());
    let_go_of_mapped({stored.tensor->data, stored.tensor->bytes()});
  }
}

const TrainedTensor* Weights::find(const Tensor& stored) const {
  const auto found = by_data_.find(stored.data);
  return found == by_data_.end() || stored.empty() ? nullptr : &tensors_[found->second];
}

std::vector<ParameterTensor> Weights::parameters() const {
  std::vector<ParameterTensor> out;
  for (const TrainedTensor& t : tensors_) out.push_back({t.name, t.values, t.gradients, t.bf16});
  return out;
}

ModelFile with_weights(ModelFile base, const Weights& weights) {
  for (const TrainedTensor& tensor : weights.tensors()) {
    const auto found = base.tensors.find(tensor.name);
    if (found == base.tensors.end() || found->second.shape != tensor.shape)
      throw Error(fmt::format("{}: holds no tensor '{}' like the one that was trained; the file has changed since",
                              base.path.string(), tensor.name));
    found->second = tensor.factor();
  }
  return base;
}

}  // namespace thimble
