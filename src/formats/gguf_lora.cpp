#include "formats/gguf_lora.h"

#include <fmt/core.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/mapped_file.h"
#include "formats/gguf.h"
#include "formats/llama_names.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

constexpr const char* kJobKey = "thimble.job";

// lora_b's rows in the other order, where GGUF permutes the layer's; else as they are.
std::vector<float> reordered(const std::vector<float>& b, const std::string& weight, const ModelConfig& base,
                             int64_t rank, bool to_gguf, const std::string& place) {
  const int heads = permuted_heads(weight, base);
  if (heads == 0) return b;
  if (static_cast<int64_t>(b.size()) != int64_t{heads} * base.head_dim * rank)
    throw Error(fmt::format("{}: '{}' has {} rows where the base model has {}; it is of another base model", place,
                            weight, static_cast<int64_t>(b.size()) / rank, int64_t{heads} * base.head_dim));
  std::vector<float> out(b.size());
  const auto reorder = to_gguf ? rows_to_gguf : rows_from_gguf;
  reorder(reinterpret_cast<const std::byte*>(b.data()), reinterpret_cast<std::byte*>(out.data()), heads, base.head_dim,
          static_cast<size_t>(rank) * sizeof(float));
  return out;
}

}  // namespace

void write_gguf_lora(const std::filesystem::path& file, const LoraAdapter& adapter, const ModelConfig& base) {
  const std::string place = file.string();
  if (base.family != "llama")
    throw Error(fmt::format("{}: adapters of family '{}' can't be written as GGUF yet; only llama's can", place,
                            base.family));
  if (adapter.dora)
    throw Error(fmt::format("{}: GGUF has no place for DoRA's magnitudes; merge the adapter into its base", place));
  std::vector<GgufEntry> metadata = {
      {"general.architecture", std::string("llama")},
      {"general.type", std::string("adapter")},
      {"general.file_type", uint32_t{0}},
      {"general.quantization_version", uint32_t{2}},
      {"adapter.type", std::string("lora")},
      {"adapter.lora.alpha", adapter.scale() * static_cast<float>(adapter.rank)},
  };
  if (!adapter.base_name.empty()) metadata.push_back({"general.base_model.0.name", adapter.base_name});
  if (!adapter.base_name.empty()) metadata.push_back({"general.base_model.count", uint32_t{1}});
  if (!adapter.manifest.empty()) metadata.push_back({kJobKey, adapter.manifest});
  std::vector<TensorSource> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> shape, std::vector<float> values) {
    tensors.push_back(
        {std::move(name), DType::kF32, std::move(shape),
         [v = std::move(values)](const WriteBytes& write) { write(v.data(), v.size() * sizeof(float)); }});
  };
  for (const auto& [name, module] : adapter.modules) {
    const std::string weight = name + ".weight";
    const auto gguf = llama_name_to_gguf(weight);
    if (!gguf) throw Error(fmt::format("{}: GGUF has no name for layer '{}'; adapt other layers", place, name));
    add(*gguf + ".lora_a", {adapter.rank, module.in}, module.a);
    add(*gguf + ".lora_b", {module.out, adapter.rank},
        reordered(module.b, weight, base, adapter.rank, true, place));
  }
  write_gguf(file, metadata, tensors);
}

LoraAdapter read_gguf_lora(const std::filesystem::path& file, const ModelConfig& base) {
  const MappedFile mapped(file);
  return parse_gguf_lora(mapped.bytes(), file.string(), base);
}

LoraAdapter parse_gguf_lora(std::span<const std::byte> bytes, const std::string& place, const ModelConfig& base) {
  const GgufFile gguf = parse_gguf(bytes, place);
  const auto expect = [&](const char* key, const std::string& value) {
    const std::string found = gguf.string(key).value_or("nothing");
    if (found != value)
      throw Error(fmt::format("{}: {} is '{}', not '{}'; give a LoRA adapter's file", place, key, found, value));
  };
  expect("general.type", "adapter");
  expect("adapter.type", "lora");
  expect("general.architecture", base.family);
  LoraAdapter out;
  const auto alpha = gguf.number("adapter.lora.alpha");
  if (!alpha || !std::isfinite(*alpha))
    throw Error(fmt::format("{}: adapter.lora.alpha is missing or not finite; convert the adapter again", place));
  out.alpha = static_cast<float>(*alpha);
  out.base_name = gguf.string("general.base_model.0.name").value_or("");
  out.manifest = gguf.string(kJobKey).value_or("");
  for (const GgufTensor& tensor : gguf.tensors) {
    const bool is_a = tensor.name.ends_with(".lora_a"), is_b = tensor.name.ends_with(".lora_b");
    const auto weight = llama_name_from_gguf(tensor.name.substr(0, tensor.name.size() - (is_a || is_b ? 7 : 0)));
    if (!weight || (!is_a && !is_b) || !weight->ends_with(".weight") || tensor.shape.size() != 2)
      throw Error(fmt::format("{}: tensor '{}' is no linear layer's LoRA; make the adapter as plain LoRA", place,
                              tensor.name));
    const int64_t rank = tensor.shape[is_a ? 0 : 1];
    if (rank < 1 || rank > 65536 || (out.rank != 0 && rank != out.rank))
      throw Error(fmt::format("{}: tensor '{}' has rank {} where others have {}; convert the adapter again", place,
                              tensor.name, rank, out.rank));
    out.rank = static_cast<int>(rank);
    std::vector<float> values(static_cast<size_t>(tensor.shape[0] * tensor.shape[1]));
    dequantize_row(tensor.type, tensor.data, static_cast<int64_t>(values.size()), values.data());
    for (const float v : values)
      if (!std::isfinite(v))
        throw Error(
            fmt::format("{}: tensor '{}' holds values that are not finite; train it again", place, tensor.name));
    LoraModule& module = out.modules[weight->substr(0, weight->size() - 7)];
    (is_a ? module.in : module.out) = tensor.shape[is_a ? 1 : 0];
    (is_a ? module.a : module.b) = is_a ? std::move(values) : reordered(values, *weight, base, rank, false, place);
  }
  if (out.modules.empty()) throw Error(fmt::format("{}: holds no tensors; convert the adapter again", place));
  for (const auto& [name, module] : out.modules)
    if (module.a.empty() || module.b.empty())
      throw Error(fmt::format("{}: layer '{}' lacks its {}; the file is incomplete", place, name,
                              module.a.empty() ? "lora_a" : "lora_b"));
  return out;
}

}  // namespace thimble
