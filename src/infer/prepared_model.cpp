#include "infer/prepared_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "kernels/dora.h"
#include "kernels/embedding.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

// Adapters are small and read for every token: halves keep 11 bits of each value at half the bandwidth.
PackedWeight pack_low_rank(const float* values, int64_t rows, int64_t cols, float scale, const Buffer<float>& gains,
                           MatmulPrecision precision) {
  Buffer<float> scaled(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < scaled.size(); ++i)
    scaled[i] = values[i] * scale * (gains.empty() ? 1.0f : gains[i / static_cast<size_t>(cols)]);
  Tensor tensor{DType::kF32, {rows, cols}, reinterpret_cast<const std::byte*>(scaled.data()), nullptr};
  ByteBuffer halves;
  if (precision == MatmulPrecision::kFast) {
    halves = ByteBuffer(dtype_bytes(DType::kF16, rows * cols));
    quantize_row(DType::kF16, scaled.data(), rows * cols, halves.data());
    tensor.type = DType::kF16;
    tensor.data = halves.data();
  }
  return PackedWeight::pack(tensor, precision);
}

// What DoRA multiplies each output with: its magnitude over the norm of the row that is packed, adapted.
Buffer<float> dora_gains(const PackedWeight& weight, const LoraModule& module, int64_t rank, float scale) {
  Buffer<float> gains(module.magnitude.size());
  threads().parallel_for(static_cast<int64_t>(gains.size()), [&](int64_t o, int) {
    std::vector<float> row(static_cast<size_t>(module.in)), delta(static_cast<size_t>(module.in));
    unpack_row(weight, o, row.data());
    for (int64_t r = 0; r < rank; ++r) {
      const float b = scale * module.b[static_cast<size_t>(o * rank + r)];
      const float* a = module.a.data() + r * module.in;
      for (size_t i = 0; i < delta.size(); ++i) delta[i] += b * a[i];
    }
    double square = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      const double sum = row[i] + delta[i];
      square += sum * sum;
    }
    const auto at = static_cast<size_t>(o);
    gains[at] = dora_gain(module.magnitude[at], static_cast<float>(std::sqrt(square)));
  });
  return gains;
}

// In memory of its own: a file that changes or is cut while a model answers must not reach into its answers.
Tensor copy_of(const Tensor& tensor) {
  const auto bytes = std::make_shared<ByteBuffer>(tensor.bytes());
  std::memcpy(bytes->data(), tensor.data, tensor.bytes());
  return {tensor.type, tensor.shape, bytes->data(), bytes};
}

void let_go(Tensor& tensor) {
  tensor.data = nullptr;
  tensor.owner = nullptr;
}

}  // namespace

PreparedModel::PreparedModel(std::shared_ptr<const Model> model, Model* taken, MatmulPrecision precision)
    : model_(std::move(model)), precision_(precision) {
  size_t need = 0;
  for (const Linear& layer : model_->linears)
    need += packed_bytes(layer.weight.type, layer.out(), layer.in(), precision);
  if (const size_t available = available_memory(); need > available)
    throw Error(fmt::format("the model's weights take {:.1f} GB laid out for the kernels, but {:.1f} GB of memory are "
                            "available; close other programs or take a smaller or more quantised model",
                            static_cast<double>(need) * 1e-9, static_cast<double>(available) * 1e-9));
  const std::byte* const head = model_->head->weight.data;
  for (const Param& param : model_->params) {
    const bool is_table = param.value.shape.size() > 1;
    params_.push_back(is_table ? Buffer<float>() : dequantize(param.value));
    tables_.push_back(is_table && param.value.data != head ? copy_of(param.value) : Tensor{});
    if (taken != nullptr) let_go(taken->params[static_cast<size_t>(param.index)].value);
  }
  for (const Linear& layer : model_->linears) {
    weights_.push_back(PackedWeight::pack(layer.weight, precision));
    biases_.push_back(layer.bias.empty() ? Buffer<float>() : dequantize(layer.bias));
    if (taken == nullptr) continue;
    let_go(taken->linears[static_cast<size_t>(layer.index)].weight);
    let_go(taken->linears[static_cast<size_t>(layer.index)].bias);
  }
}

void PreparedModel::table_rows(const Param& table, const int32_t* ids, int64_t count, float* out) const {
  const Tensor& stored = tables_[static_cast<size_t>(table.index)];
  if (!stored.empty()) return embedding_forward(stored, ids, count, out);
  const PackedWeight& packed = weight(*model_->head);
  const auto row = [&](int64_t r, int) { unpack_row(packed, ids[r], out + r * packed.in()); };
  if (count < 16)
    for (int64_t r = 0; r < count; ++r) row(r, 0);
  else
    threads().parallel_for(count, row);
}

std::vector<PreparedModel::LowRankPair> PreparedModel::packed(const LoraAdapter& adapter) const {
  std::vector<LowRankPair> pairs(model_->linears.size());
  size_t used = 0;
  for (const Linear& layer : model_->linears) {
    const auto found = adapter.modules.find(layer.name);
    if (found == adapter.modules.end()) continue;
    const auto& module = found->second;
    if (module.in != layer.in() || module.out != layer.out())
      throw Error(fmt::format("adapter: module '{}' is {} x {} where the model has {} x {}; it was made for another "
                              "base model",
                              layer.name, module.out, module.in, layer.out(), layer.in()));
    auto& pair = pairs[static_cast<size_t>(layer.index)];
    pair.gains = dora_gains(weight(layer), module, adapter.rank, adapter.scale());
    pair.a = pack_low_rank(module.a.data(), adapter.rank, layer.in(), 1.0f, {}, precision_);
    pair.b = pack_low_rank(module.b.data(), layer.out(), adapter.rank, adapter.scale(), pair.gains, precision_);
    ++used;
  }
  if (used != adapter.modules.size())
    for (const auto& [name, module] : adapter.modules)
      if (std::none_of(model_->linears.begin(), model_->linears.end(), [&](const Linear& l) { return l.name == name; }))
        throw Error(fmt::format("adapter: the model has no module '{}'; it was made for another base model", name));
  return pairs;
}

void PreparedModel::put(int number, std::vector<LowRankPair> pairs) {
  const auto bytes = [](const std::vector<LowRankPair>& of) {
    size_t total = 0;
    for (const auto& pair : of) total += pair.a.bytes() + pair.b.bytes() + pair.gains.size() * sizeof(float);
    return total;
  };
  auto& kept = adapters_.at(static_cast<size_t>(number - 1));
  adapter_bytes_ += bytes(pairs) - bytes(kept);
  kept = std::move(pairs);
}

int PreparedModel::add_adapter(const LoraAdapter& adapter) {
  std::vector<LowRankPair> pairs = packed(adapter);
  adapters_.emplace_back();
  put(adapters(), std::move(pairs));
  return adapters();
}

void PreparedModel::replace_adapter(int number, const LoraAdapter& adapter) {
  put(number, packed(adapter));
}

const RopeTable& PreparedModel::rope_table(const Rope& rope) const {
  for (const auto& [frequencies, table] : rope_tables_)
    if (frequencies == rope.inverse_frequencies) return *table;
  auto table = std::make_unique<RopeTable>(rope.inverse_frequencies, model_->config.context);
  return *rope_tables_.emplace_back(rope.inverse_frequencies, std::move(table)).second;
}

size_t PreparedModel::bytes() const {
  size_t total = 0;
  for (const auto& w : weights_) total += w.bytes();
  for (const auto& p : params_) total += p.size() * sizeof(float);
  for (const auto& t : tables_) total += t.empty() ? 0 : t.bytes();
  for (const auto& b : biases_) total += b.size() * sizeof(float);
  return total + adapter_bytes_;
}

}  // namespace thimble
