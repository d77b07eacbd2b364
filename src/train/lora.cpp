#include "train/lora.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "kernels/dora.h"

namespace thimble {
namespace {

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// "q_proj" is the last part of "model.layers.0.self_attn.q_proj"; "self_attn.q_proj" and the whole name fit too.
bool fits(const std::string& name, const std::string& target) {
  return name == target ||
         (name.size() > target.size() && name.ends_with(target) && name[name.size() - target.size() - 1] == '.');
}

// 8 of "model.layers.8.self_attn.q_proj": the first part that is a number, as PEFT finds it; -1 where none is.
int layer_number(const std::string& name) {
  for (size_t at = name.find('.'); at != std::string::npos; at = name.find('.', at + 1)) {
    int number = 0;
    const char* const begin = name.data() + at + 1;
    const auto [stop, error] = std::from_chars(begin, name.data() + name.size(), number);
    if (error == std::errc() && stop != begin && stop != name.data() + name.size() && *stop == '.') return number;
  }
  return -1;
}

void check(const LoraConfig& config) {
  if (config.rank < 1 || config.rank > 1024)
    throw Error(fmt::format("adapter: rank is {}; choose 1 to 1024", config.rank));
  if (!(config.alpha > 0) || !std::isfinite(config.alpha))
    throw Error(fmt::format("adapter: alpha is {}; it must be above 0", config.alpha));
  if (!(config.plus > 0) || !std::isfinite(config.plus))
    throw Error(fmt::format("adapter: the ratio of b's learning rate is {}; it must be above 0", config.plus));
  if (!(config.dropout >= 0) || !(config.dropout < 1))
    throw Error(fmt::format("adapter: dropout is {}; it must be at least 0 and below 1", config.dropout));
}

}  // namespace

float LoraConfig::scale() const {
  const float r = static_cast<float>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

std::vector<const Linear*> lora_targets(const Model& model, const LoraConfig& config) {
  const std::vector<std::string>& targets = config.targets;
  for (const int layer : config.layers)
    if (std::none_of(model.linears.begin(), model.linears.end(),
                     [&](const Linear& linear) { return layer_number(linear.name) == layer; }))
      throw Error(fmt::format("adapter: the model has no layer {}; its layers are 0 to {}", layer,
                              model.config.layers - 1));
  const auto in_layers = [&](const Linear& linear) {
    return config.layers.empty() || std::find(config.layers.begin(), config.layers.end(), layer_number(linear.name)) !=
                                        config.layers.end();
  };
  if (targets.empty()) throw Error("adapter: no target layers are named; say all-linear to adapt all");
  std::set<const Linear*> chosen;
  for (const std::string& target : targets) {
    bool found = false;
    for (const Linear& linear : model.linears) {
      const bool is_head = &linear == model.head;
      if (target == "all-linear" ? is_head : !fits(linear.name, target)) continue;
      if (is_head)
        throw Error(
            fmt::format("adapter: target '{}' is the output head, which can't be adapted; leave it out", target));
      if (in_layers(linear)) chosen.insert(&linear);
      found = true;
    }
    if (!found) {
      std::set<std::string> known;
      for (const Linear& linear : model.linears)
        if (&linear != model.head) known.insert(last_part(linear.name));
      throw Error(fmt::format("adapter: no layer of the model is called '{}'; it has {}, or say all-linear", target,
                              fmt::join(known, ", ")));
    }
  }
  if (chosen.empty()) throw Error("adapter: targets and layers have no linear layer in common; widen one of them");
  std::vector<const Linear*> out(chosen.begin(), chosen.end());
  std::sort(out.begin(), out.end(), [](const Linear* a, const Linear* b) { return a->index < b->index; });
  return out;
}

Lora::Lora(const Model& model, LoraConfig config, uint64_t seed) : config_(std::move(config)) {
  check(config_);
  const auto chosen = lora_targets(model, config_);
  const int64_t rank = config_.rank;
  int64_t count = 0;
  int64_t outputs = 0;
  for (const Linear* linear : chosen) {
    count += rank * (linear->in() + linear->out()) + (config_.dora ? linear->out() : 0);
    outputs += linear->out();
  }
  values_ = Buffer<float>(static_cast<size_t>(count));
  gradients_ = Buffer<float>(static_cast<size_t>(count));
  squares_ = Buffer<float>(static_cast<size_t>(config_.dora ? outputs : 0));

  by_linear_.assign(model.linears.size(), -1);
  Random random(seed);
  int64_t at = 0;
  float* squares = squares_.data();
  for (const Linear* linear : chosen) {
    const int64_t a_count = rank * linear->in();
    const int64_t b_count = rank * linear->out();
    by_linear_[static_cast<size_t>(linear->index)] = static_cast<int>(layers_.size());
    LoraLayer& layer = layers_.emplace_back();
    layer.linear = linear;
    layer.rank = rank;
    layer.a = values_.data() + at;
    layer.b = layer.a + a_count;
    layer.da = gradients_.data() + at;
    layer.db = layer.da + a_count;
    const double bound = 1 / std::sqrt(static_cast<double>(linear->in()));
    for (int64_t i = 0; i < a_count; ++i) layer.a[i] = static_cast<float>((2 * random.uniform() - 1) * bound);
    at += a_count + b_count;
    if (!config_.dora) continue;
    squared_row_norms(linear->weight, squares);
    layer.squares = squares;
    layer.magnitude = values_.data() + at;
    layer.dmagnitude = gradients_.data() + at;
    for (int64_t o = 0; o < linear->out(); ++o) layer.magnitude[o] = std::sqrt(squares[o]);
    squares += linear->out();
    at += linear->out();
  }
}

const LoraLayer* Lora::find(const Linear& linear) const {
  const int at = by_linear_[static_cast<size_t>(linear.index)];
  return at < 0 ? nullptr : &layers_[static_cast<size_t>(at)];
}

std::vector<ParameterTensor> Lora::parameters() const {
  std::vector<ParameterTensor> out;
  for (const LoraLayer& layer : layers_) {
    const auto a_count = static_cast<size_t>(layer.rank * layer.linear->in());
    const auto b_count = static_cast<size_t>(layer.rank * layer.linear->out());
    out.push_back({layer.linear->name + ".lora_A", {layer.a, a_count}, {layer.da, a_count}});
    out.push_back({layer.linear->name + ".lora_B", {layer.b, b_count}, {layer.db, b_count}, {}, config_.plus});
    if (layer.magnitude == nullptr) continue;
    const auto outputs = static_cast<size_t>(layer.linear->out());
    out.push_back({layer.linear->name + ".lora_magnitude_vector", {layer.magnitude, outputs},
                   {layer.dmagnitude, outputs}});
  }
  return out;
}

LoraConfig lora_config(const LoraAdapter& adapter) {
  LoraConfig config;
  config.rank = adapter.rank;
  config.alpha = adapter.alpha;
  config.rslora = adapter.rslora;
  config.dora = adapter.dora;
  config.targets.clear();
  for (const auto& [name, module] : adapter.modules) config.targets.push_back(name);
  return config;
}

LoraAdapter to_adapter(const Lora& lora, const std::string& base_name) {
  const LoraConfig& config = lora.config();
  LoraAdapter out;
  out.rank = config.rank;
  out.alpha = config.alpha;
  out.rslora = config.rslora;
  out.dora = config.dora;
  out.layers = config.layers;
  out.dropout = config.dropout;
  out.base_name = base_name;
  for (const LoraLayer& layer : lora.layers()) {
    LoraModule& module = out.modules[layer.linear->name];
    module.in = layer.linear->in();
    module.out = layer.linear->out();
    module.a.assign(layer.a, layer.a + layer.rank * module.in);
    module.b.assign(layer.b, layer.b + layer.rank * module.out);
    if (layer.magnitude != nullptr) module.magnitude.assign(layer.magnitude, layer.magnitude + module.out);
  }
  return out;
}

void from_adapter(const LoraAdapter& adapter, const Lora& lora) {
  const LoraConfig& config = lora.config();
  if (adapter.rank != config.rank || adapter.scale() != config.scale())
    throw Error(fmt::format("adapter: rank {} with scale {}, where the run has rank {} with scale {}; set the same",
                            adapter.rank, adapter.scale(), config.rank, config.scale()));
  if (adapter.dora != config.dora)
    throw Error(fmt::format("adapter: it is {}, where the run trains {}; set the same method",
                            adapter.dora ? "DoRA" : "LoRA", config.dora ? "DoRA" : "LoRA"));
  if (adapter.modules.size() != lora.layers().size())
    throw Error(fmt::format("adapter: it adapts {} layers, where the run adapts {}; choose the same targets",
                            adapter.modules.size(), lora.layers().size()));
  for (const LoraLayer& layer : lora.layers()) {
    const auto found = adapter.modules.find(layer.linear->name);
    if (found == adapter.modules.end())
      throw Error(fmt::format("adapter: layer '{}' is missing; choose the same targets", layer.linear->name));
    const LoraModule& module = found->second;
    if (module.in != layer.linear->in() || module.out != layer.linear->out())
      throw Error(
          fmt::format("adapter: layer '{}' is {} x {}, where the model's is {} x {}; it belongs to another "
                      "model",
                      layer.linear->name, module.out, module.in, layer.linear->out(), layer.linear->in()));
    std::copy(module.a.begin(), module.a.end(), layer.a);
    std::copy(module.b.begin(), module.b.end(), layer.b);
    if (config.dora) std::copy(module.magnitude.begin(), module.magnitude.end(), layer.magnitude);
  }
}

}  // namespace thimble
