#include "formats/adapter.h"

#include <fmt/core.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/paths.h"
#include "formats/json_text.h"
#include "formats/safetensors.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapter_model.safetensors";
constexpr const char* kManifestName = "thimble_job.json";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";
// PEFT writes the first; the second is the parameter's own name in its modules.
constexpr std::string_view kMagnitude = ".lora_magnitude_vector", kOldMagnitude = ".lora_magnitude_vector.weight";
constexpr int kLargestRank = 65536;

// Fields that say how the adapter came about or which modules it has; the tensors tell the latter.
constexpr std::string_view kWithoutEffect[] = {"base_model_name_or_path",
                                               "revision",
                                               "peft_version",
                                               "inference_mode",
                                               "target_modules",
                                               "exclude_modules",
                                               "layers_pattern",
                                               "lora_dropout",
                                               "auto_mapping",
                                               "megatron_core",
                                               "qalora_group_size",
                                               "runtime_config"};
constexpr std::string_view kRead[] = {"peft_type", "task_type",        "r", "lora_alpha", "use_rslora", "use_dora",
                                      "bias",      "init_lora_weights", "layers_to_transform"};

bool is_neutral(const json& value) {
  return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

void check_field(const std::string& place, const std::string& key, const json& value) {
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("{}: field '{}' {}; make the adapter as plain LoRA", place, key, what));
  };
  const auto is_in = [&](const auto& list) {
    return std::find(std::begin(list), std::end(list), key) != std::end(list);
  };
  if (is_in(kWithoutEffect)) return;
  if (!is_in(kRead)) {
    if (!is_neutral(value))
      fail(fmt::format("is {}, which changes the computation in a way that is not supported",
                       value.dump().substr(0, 80)));
    return;
  }
  if (key == "peft_type" && value != "LORA") fail("must be LORA");
  if (key == "task_type" && !value.is_null() && value != "CAUSAL_LM") fail("must be CAUSAL_LM");
  if (key == "bias" && value != "none") fail("must be none");
  if ((key == "use_rslora" || key == "use_dora") && !value.is_boolean()) fail("must be true or false");
  if (key == "init_lora_weights" && !value.is_boolean() && value != "gaussian" && value != "orthogonal" &&
      value != "eva" && !value.is_null())
    fail(fmt::format("is {}, which changes the base model's weights", value.dump()));
}

LoraAdapter read_config(const fs::path& path) {
  const std::string place = path.string();
  const json config = parse_json_object(read_file(path), place);
  for (const char* needed : {"peft_type", "r", "lora_alpha"})
    if (!config.contains(needed)) throw Error(fmt::format("{}: field '{}' is missing", place, needed));
  for (const auto& [key, value] : config.items()) check_field(place, key, value);
  LoraAdapter adapter;
  if (!config["r"].is_number_integer() || config["r"] < 1 || config["r"] > kLargestRank)
    throw Error(fmt::format("{}: field 'r' must be a whole number from 1 to {}", place, kLargestRank));
  adapter.rank = config["r"].get<int>();
  if (!config["lora_alpha"].is_number()) throw Error(fmt::format("{}: field 'lora_alpha' must be a number", place));
  adapter.alpha = config["lora_alpha"].get<float>();
  if (!std::isfinite(adapter.alpha)) throw Error(fmt::format("{}: field 'lora_alpha' must be finite", place));
  adapter.rslora = config.value("use_rslora", false);
  adapter.dora = config.value("use_dora", false);
  if (const auto layers = config.find("layers_to_transform"); layers != config.end() && !layers->is_null())
    for (const json& layer : layers->is_array() ? *layers : json::array({*layers})) {
      if (!layer.is_number_integer() || layer < 0 || layer > 100000)
        throw Error(fmt::format("{}: field 'layers_to_transform' must be a layer's number or a list of them", place));
      adapter.layers.push_back(layer.get<int>());
    }
  if (const auto name = config.find("base_model_name_or_path"); name != config.end() && name->is_string())
    adapter.base_name = name->get<std::string>();
  if (const auto dropout = config.find("lora_dropout"); dropout != config.end() && dropout->is_number())
    adapter.dropout = dropout->get<float>();
  return adapter;
}

std::vector<float> values_of(const Tensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.elements()));
  dequantize_row(tensor.type, tensor.data, tensor.elements(), out.data());
  return out;
}

void read_weights(const fs::path& path, LoraAdapter& adapter) {
  const std::string place = path.string();
  std::map<std::string, int> parts;
  for (const auto& [name, tensor] : read_safetensors(path)) {
    const auto fail = [&, &name = name](const std::string& what) {
      throw Error(fmt::format("{}: tensor '{}' {}", place, name, what));
    };
    const bool is_a = name.ends_with(kA), is_b = name.ends_with(kB);
    const std::string_view suffix = is_a ? kA : is_b ? kB : name.ends_with(kMagnitude) ? kMagnitude : kOldMagnitude;
    const bool is_magnitude = adapter.dora && (suffix == kMagnitude || name.ends_with(kOldMagnitude));
    if (!name.starts_with(kPrefix) || (!is_a && !is_b && !is_magnitude))
      fail(fmt::format("is not part of a {} adapter for linear layers (…lora_A.weight and …lora_B.weight{}); make it "
                       "again", adapter.dora ? "DoRA" : "plain LoRA",
                       adapter.dora ? ", …lora_magnitude_vector" : ""));
    std::vector<float> values = values_of(tensor);
    for (const float v : values)
      if (!std::isfinite(v)) fail("holds values that are not finite; the training that made it diverged, train again");
    LoraModule& placed = adapter.modules[name.substr(kPrefix.size(), name.size() - kPrefix.size() - suffix.size())];
    if (is_magnitude) {
      if (tensor.shape.size() != 1) fail("must have one dimension; the file is damaged");
      placed.magnitude = std::move(values);
      continue;
    }
    if (tensor.shape.size() != 2) fail("must have two dimensions; the file is damaged");
    if (tensor.shape[is_a ? 0 : 1] != adapter.rank)
      fail(fmt::format("has rank {} where adapter_config.json says {}; the files don't belong together",
                       tensor.shape[is_a ? 0 : 1], adapter.rank));
    (is_a ? placed.in : placed.out) = tensor.shape[is_a ? 1 : 0];
    (is_a ? placed.a : placed.b) = std::move(values);
  }
  if (adapter.modules.empty()) throw Error(fmt::format("{}: holds no tensors; make the adapter again", place));
  for (const auto& [module, placed] : adapter.modules)
    if (placed.a.empty() || placed.b.empty())
      throw Error(fmt::format("{}: module '{}' lacks its {}; the file is incomplete", place, module,
                              placed.a.empty() ? "lora_A" : "lora_B"));
  if (!adapter.dora) return;
  for (const auto& [module, placed] : adapter.modules)
    if (static_cast<int64_t>(placed.magnitude.size()) != placed.out)
      throw Error(fmt::format("{}: module '{}' has {} outputs and {} magnitudes (lora_magnitude_vector); the file is "
                              "incomplete", place, module, placed.out, placed.magnitude.size()));
}

std::set<std::string> target_modules(const LoraAdapter& adapter) {  // the last parts of the modules' paths
  std::set<std::string> names;
  for (const auto& [module, unused] : adapter.modules) names.insert(module.substr(module.rfind('.') + 1));
  return names;
}

json config_of(const LoraAdapter& adapter) {
  const bool whole = adapter.alpha == std::floor(adapter.alpha) && std::fabs(adapter.alpha) < 1e6f;
  const json alpha = whole ? json(static_cast<int>(adapter.alpha)) : json(adapter.alpha);  // peft says it is an int
  return {{"alora_invocation_tokens", nullptr},
          {"alpha_pattern", json::object()},
          {"auto_mapping", nullptr},
          {"base_model_name_or_path", adapter.base_name},
          {"bias", "none"},
          {"exclude_modules", nullptr},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"layers_pattern", nullptr},
          {"layers_to_transform", adapter.layers.empty() ? json(nullptr) : json(adapter.layers)},
          {"lora_alpha", alpha},
          {"lora_bias", false},
          {"lora_dropout", adapter.dropout},
          {"modules_to_save", nullptr},
          {"peft_type", "LORA"},
          {"r", adapter.rank},
          {"rank_pattern", json::object()},
          {"revision", nullptr},
          {"target_modules", target_modules(adapter)},
          {"task_type", "CAUSAL_LM"},
          {"use_dora", adapter.dora},
          {"use_rslora", adapter.rslora}};
}

}  // namespace

float LoraAdapter::scale() const {
  const auto r = static_cast<float>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

LoraAdapter read_adapter(const fs::path& folder) {
  if (!path_exists(folder)) throw Error(fmt::format("{}: does not exist; check the path", folder.string()));
  if (!path_exists(folder / kConfigName))
    throw Error(fmt::format("{}: has no {}; give the folder of an adapter", folder.string(), kConfigName));
  LoraAdapter adapter = read_config(folder / kConfigName);
  read_weights(folder / kWeightsName, adapter);
  if (path_exists(folder / kManifestName)) adapter.manifest = read_file(folder / kManifestName);
  return adapter;
}

void write_adapter(const fs::path& folder, const LoraAdapter& adapter) {
  std::error_code reason;
  fs::create_directories(folder, reason);
  if (reason)
    throw Error(fmt::format("{}: can't be created ({}); check the path and its permissions", folder.string(),
                            reason.message()));
  std::vector<TensorSource> tensors;
  for (const auto& [name, module] : adapter.modules) {
    assert(module.a.size() == static_cast<size_t>(adapter.rank * module.in));
    assert(module.b.size() == static_cast<size_t>(adapter.rank * module.out));
    assert(module.magnitude.size() == static_cast<size_t>(adapter.dora ? module.out : 0));
    const auto add = [&](std::string_view part, std::vector<int64_t> shape, const std::vector<float>& values) {
      tensors.push_back({fmt::format("{}{}{}", kPrefix, name, part), DType::kF32, std::move(shape),
                         [&values](const WriteBytes& write) { write(values.data(), values.size() * sizeof(float)); }});
    };
    add(kA, {adapter.rank, module.in}, module.a);
    add(kB, {module.out, adapter.rank}, module.b);
    if (adapter.dora) add(kMagnitude, {module.out}, module.magnitude);
  }
  write_safetensors(folder / kWeightsName, tensors, {{"format", "pt"}});
  if (!adapter.manifest.empty()) write_file(folder / kManifestName, adapter.manifest);
  write_file(folder / kConfigName, config_of(adapter).dump(2) + "\n");
}

}  // namespace thimble
