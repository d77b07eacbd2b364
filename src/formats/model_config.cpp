#include "formats/model_config.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "core/error.h"
#include "formats/json_text.h"

namespace thimble {
namespace {

using nlohmann::json;

constexpr int64_t kLargestSize = int64_t{1} << 24;

// Typed, checked access to a JSON object's fields; null counts as absent, as transformers has it.
class Fields {
 public:
  Fields(const json& object, std::string place) : object_(object), place_(std::move(place)) {}

  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  [[noreturn]] void fail(const char* key, const std::string& what) const {
    throw Error(fmt::format("{}: field '{}' {}", place_, key, what));
  }
  int size(const char* key) const {
    if (find(key) == nullptr) fail(key, "is missing; the file is incomplete, fetch it again");
    return size(key, 0);
  }
  int size(const char* key, int otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number_integer() || *value <= 0 || *value > kLargestSize)
      fail(key, fmt::format("is {}, it must be a whole number from 1 to {}", value->dump(), kLargestSize));
    return value->get<int>();
  }
  float number(const char* key, float otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) fail(key, fmt::format("is {}, it must be a number", value->dump()));
    return value->get<float>();
  }
  bool boolean(const char* key, bool otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, fmt::format("is {}, it must be true or false", value->dump()));
    return value->get<bool>();
  }
  std::string text(const char* key, const char* otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) fail(key, fmt::format("is {}, it must be a string", value->dump()));
    return value->get<std::string>();
  }
  // Refuses a field that would change the computation; `value` is what it must hold where it is there.
  void only(const char* key, const json& value) const {
    const json* found = find(key);
    if (found != nullptr && *found != value)
      fail(key,
           fmt::format("is {}; only {} is supported, choose another model", found->dump().substr(0, 80), value.dump()));
  }
  void absent(const char* key, const char* what) const {
    if (find(key) != nullptr) fail(key, fmt::format("is set: {}; choose another model", what));
  }

 private:
  const json& object_;
  std::string place_;
};

void read_rope(const Fields& fields, const json& config, const std::string& place, ModelConfig& out) {
  out.rope_theta = fields.number("rope_theta", 10000.0f);
  const char* key = fields.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const json* rope = fields.find(key);  // transformers 5 writes the first, earlier ones the second
  if (rope == nullptr) return;
  if (!rope->is_object()) fields.fail(key, "must be an object");
  const Fields inside(config[key], fmt::format("{}: {}", place, key));
  for (const auto& [name, value] : rope->items()) {
    constexpr std::string_view kKnown[] = {"rope_type",
                                           "type",
                                           "rope_theta",
                                           "factor",
                                           "low_freq_factor",
                                           "high_freq_factor",
                                           "original_max_position_embeddings",
                                           "partial_rotary_factor"};
    if (std::find(std::begin(kKnown), std::end(kKnown), name) == std::end(kKnown))
      inside.fail(name.c_str(), "is not supported; choose another model");
  }
  inside.only("partial_rotary_factor", 1.0);
  out.rope_theta = inside.number("rope_theta", out.rope_theta);
  const std::string type = inside.text("rope_type", inside.text("type", "default").c_str());
  if (type == "default") return;
  if (type != "linear" && type != "llama3")
    inside.fail("rope_type",
                fmt::format("is '{}'; default, linear and llama3 are supported, choose another model", type));
  RopeScaling scaling;
  scaling.type = type;
  if (inside.find("factor") == nullptr) inside.fail("factor", "is missing");
  scaling.factor = inside.number("factor", 1);
  if (type == "llama3") {
    scaling.low_freq_factor = inside.number("low_freq_factor", 1);
    scaling.high_freq_factor = inside.number("high_freq_factor", 4);
    scaling.original_context = inside.size("original_max_position_embeddings");
    if (!(scaling.low_freq_factor > 0) || !(scaling.high_freq_factor > scaling.low_freq_factor))
      inside.fail("high_freq_factor", "must be larger than low_freq_factor, and both positive");
  }
  if (!(scaling.factor > 0) || !std::isfinite(scaling.factor)) inside.fail("factor", "must be positive");
  out.rope_scaling = scaling;
}

ModelConfig read_llama(const json& config, const std::string& place) {
  const Fields f(config, place);
  ModelConfig out;
  out.family = "llama";
  out.vocab = f.size("vocab_size");
  out.hidden = f.size("hidden_size");
  out.layers = f.size("num_hidden_layers");
  out.heads = f.size("num_attention_heads");
  out.kv_heads = f.size("num_key_value_heads", out.heads);
  out.head_dim = f.size("head_dim", std::max(out.hidden / out.heads, 1));
  out.ffn = f.size("intermediate_size");
  out.context = f.size("max_position_embeddings", 2048);
  out.norm_eps = f.number("rms_norm_eps", 1e-6f);
  out.tied_embeddings = f.boolean("tie_word_embeddings", false);
  out.attention_bias = f.boolean("attention_bias", false);
  out.mlp_bias = f.boolean("mlp_bias", false);
  read_rope(f, config, place, out);
  f.only("hidden_act", "silu");
  f.only("rope_interleaved", false);
  f.only("partial_rotary_factor", 1.0);
  f.only("use_bidirectional_attention", false);
  if (f.boolean("use_sliding_window", true)) f.absent("sliding_window", "sliding windows are not supported");
  f.absent("num_experts", "mixtures of experts are not supported");
  f.absent("num_local_experts", "mixtures of experts are not supported");
  f.absent("auto_map", "the model brings its own code, which is never run");
  if (const json* types = f.find("layer_types"))
    for (const json& type : *types)
      if (type != "full_attention")
        f.fail("layer_types", "has layers other than full_attention, which are not supported");
  return out;
}

ModelConfig read_gpt2(const json& config, const std::string& place) {
  const Fields f(config, place);
  ModelConfig out;
  out.family = "gpt2";
  out.vocab = f.size("vocab_size");
  out.hidden = f.size("n_embd");
  out.layers = f.size("n_layer");
  out.heads = out.kv_heads = f.size("n_head");
  out.head_dim = std::max(out.hidden / out.heads, 1);
  out.ffn = f.size("n_inner", 4 * out.hidden);
  out.context = f.size("n_positions", 1024);
  out.norm_eps = f.number("layer_norm_epsilon", 1e-5f);
  out.tied_embeddings = f.boolean("tie_word_embeddings", true);
  out.attention_bias = out.mlp_bias = true;
  const std::string activation = f.text("activation_function", "gelu_new");
  if (activation != "gelu_new" && activation != "gelu_pytorch_tanh") f.only("activation_function", "gelu_new");
  f.only("scale_attn_weights", true);
  f.only("scale_attn_by_inverse_layer_idx", false);
  f.only("add_cross_attention", false);
  f.absent("auto_map", "the model brings its own code, which is never run");
  if (out.heads * out.head_dim != out.hidden) f.fail("n_head", "must divide n_embd");
  return out;
}

}  // namespace

ModelConfig parse_model_config(std::string_view config_json, const std::string& place) {
  const json config = parse_json_object(config_json, place);
  const Fields f(config, place);
  const std::string type = f.text("model_type", "");
  f.absent("quantization_config", "weights quantised by other tools can't be read, use the original or a GGUF file");
  ModelConfig out;
  if (type == "llama") {
    out = read_llama(config, place);
  } else if (type == "gpt2") {
    out = read_gpt2(config, place);
  } else {
    throw Error(
        fmt::format("{}: model_type '{}' is not supported; known: llama (SmolLM2, Llama 2 and 3, TinyLlama), "
                    "gpt2",
                    place, type));
  }
  check_model_config(out, place);
  return out;
}

void check_model_config(const ModelConfig& c, const std::string& place) {
  const auto fail = [&](const std::string& what) { throw Error(fmt::format("{}: {}", place, what)); };
  for (const int size : {c.vocab, c.hidden, c.layers, c.heads, c.kv_heads, c.head_dim, c.ffn, c.context})
    if (size < 1 || size > kLargestSize)
      fail(
          fmt::format("a size of the model is {}, each must be from 1 to {}; the file is damaged", size, kLargestSize));
  if (c.layers > 10000) fail(fmt::format("{} layers are more than any model has; the file is damaged", c.layers));
  if (c.heads % c.kv_heads != 0)
    fail(fmt::format("{} attention heads can't share {} key heads evenly; the file is damaged", c.heads, c.kv_heads));
  if (c.family == "llama" && c.head_dim % 2 != 0)
    fail(fmt::format("heads of {} elements can't be rotated in pairs; the file is damaged", c.head_dim));
  if (int64_t{c.heads} * c.head_dim > kLargestSize)
    fail("attention heads times their size is larger than any model's; the file is damaged");
  if (!(c.norm_eps >= 0) || !(c.norm_eps < 1)) fail(fmt::format("norm epsilon {} is senseless", c.norm_eps));
  if (!(c.rope_theta > 0) || !std::isfinite(c.rope_theta))
    fail(fmt::format("rope theta {} is senseless", c.rope_theta));
}

std::vector<float> llama3_factors(const RopeScaling& scaling, float rope_theta, int head_dim) {
  std::vector<float> factors;
  for (int i = 0; i < head_dim / 2; ++i) {
    const double wavelength = 2 * std::numbers::pi * std::pow(static_cast<double>(rope_theta), 2.0 * i / head_dim);
    const double long_waves = scaling.original_context / scaling.low_freq_factor;
    const double short_waves = scaling.original_context / scaling.high_freq_factor;
    double factor = 1;
    if (wavelength > long_waves) {
      factor = scaling.factor;
    } else if (wavelength > short_waves) {
      const double smooth = (scaling.original_context / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
      factor = 1 / ((1 - smooth) / scaling.factor + smooth);
    }
    factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

std::optional<RopeScaling> llama3_scaling(const std::vector<float>& factors, float rope_theta, int head_dim) {
  for (const float factor : {8.0f, 32.0f}) {
    const RopeScaling rule{"llama3", factor, 1, 4, 8192};
    const auto expected = llama3_factors(rule, rope_theta, head_dim);
    bool same = expected.size() == factors.size();
    for (size_t i = 0; same && i < factors.size(); ++i)
      same = std::fabs(expected[i] - factors[i]) <= 1e-4f * expected[i];
    if (same) return rule;
  }
  return std::nullopt;
}

std::string model_config_json(const ModelConfig& c, std::string_view dtype) {
  if (c.family != "llama")
    throw Error(fmt::format("a config.json of family '{}' can't be written; only llama's can", c.family));
  nlohmann::ordered_json out = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"vocab_size", c.vocab},
      {"hidden_size", c.hidden},
      {"intermediate_size", c.ffn},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"head_dim", c.head_dim},
      {"max_position_embeddings", c.context},
      {"hidden_act", "silu"},
      {"rms_norm_eps", std::stod(fmt::format("{}", c.norm_eps))},  // 1e-05, not 9.999999747378752e-06
      {"rope_theta", std::stod(fmt::format("{}", c.rope_theta))},
      {"attention_bias", c.attention_bias},
      {"mlp_bias", c.mlp_bias},
      {"tie_word_embeddings", c.tied_embeddings},
      {"torch_dtype", dtype},
  };
  auto scaling = c.rope_scaling;
  if (!c.rope_factors.empty()) {
    scaling = llama3_scaling(c.rope_factors, c.rope_theta, c.head_dim);
    if (!scaling)
      throw Error("the model's rope_freqs.weight follows no rule that config.json can express; merge to GGUF instead");
  }
  if (scaling && scaling->type == "llama3") {
    out["rope_scaling"] = {{"rope_type", "llama3"},
                           {"factor", scaling->factor},
                           {"low_freq_factor", scaling->low_freq_factor},
                           {"high_freq_factor", scaling->high_freq_factor},
                           {"original_max_position_embeddings", scaling->original_context}};
  } else if (scaling) {
    out["rope_scaling"] = {{"rope_type", "linear"}, {"factor", scaling->factor}};
  }
  return out.dump(2) + "\n";
}

}  // namespace thimble
