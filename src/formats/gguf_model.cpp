#include "formats/gguf_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/buffer.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "formats/llama_names.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

// Everything under "<architecture>." that is understood; anything else may change the computation.
constexpr std::string_view kKnownKeys[] = {
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.causal", "attention.sliding_window",
    "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned", "rope.scaling.attn_factor",
    "expert_count", "expert_used_count", "tensor_data_layout", "use_parallel_residual"};

class Keys {
 public:
  Keys(const GgufFile& file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  std::string full(std::string_view key) const { return prefix_ + std::string(key); }
  [[noreturn]] void fail(std::string_view key, const std::string& what) const {
    throw Error(fmt::format("{}: metadata '{}' {}", file_.place, full(key), what));
  }
  std::optional<int> maybe_size(std::string_view key) const {
    const auto found = uniform(key);
    if (!found) return std::nullopt;
    if (*found < 0 || *found > (1 << 24)) fail(key, fmt::format("is {}; the file is damaged", *found));
    return static_cast<int>(*found);
  }
  int size(std::string_view key) const {
    const auto found = maybe_size(key);
    if (!found) fail(key, "is missing; the file is incomplete");
    return *found;
  }
  float number(std::string_view key, double otherwise) const {
    return static_cast<float>(file_.number(full(key)).value_or(otherwise));
  }
  const GgufFile& file() const { return file_; }
  std::string_view prefix() const { return prefix_; }

 private:
  // Some converters write a list with one value a layer; it must be the same for all.
  std::optional<int64_t> uniform(std::string_view key) const {
    const GgufValue* value = file_.find(full(key));
    const auto* array = value != nullptr ? std::get_if<GgufArray>(value) : nullptr;
    if (array == nullptr) return file_.integer(full(key));
    return std::visit(
        [&](const auto& list) -> int64_t {
          using Item = typename std::decay_t<decltype(list)>::value_type;
          if constexpr (std::is_integral_v<Item> && !std::is_same_v<Item, bool>) {
            if (!list.empty() && std::all_of(list.begin(), list.end(), [&](Item v) { return v == list[0]; }))
              return static_cast<int64_t>(list[0]);
          }
          fail(key, "differs from layer to layer, which is not supported; choose another model");
        },
        array->items);
  }

  const GgufFile& file_;
  std::string prefix_;
};

void refuse_unsupported(const Keys& keys) {
  for (const GgufEntry& entry : keys.file().metadata) {
    if (!entry.key.starts_with(keys.prefix())) continue;
    const std::string key = entry.key.substr(keys.prefix().size());
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), key) == std::end(kKnownKeys))
      keys.fail(key, "is unknown and may change what the model computes; choose another model");
  }
  if (keys.maybe_size("expert_count").value_or(0) > 0)
    keys.fail("expert_count", "is set: mixtures of experts are not supported, choose another model");
  if (keys.maybe_size("attention.sliding_window").value_or(0) > 0)
    keys.fail("attention.sliding_window", "is set: sliding windows are not supported, choose another model");
  if (!keys.file().boolean(keys.full("attention.causal")).value_or(true))
    keys.fail("attention.causal", "is false: only causal models are supported, choose another model");
  if (keys.number("rope.scaling.attn_factor", 1) != 1)
    keys.fail("rope.scaling.attn_factor", "is not 1, which is not supported; choose another model");
}

std::optional<RopeScaling> read_scaling(const Keys& keys) {
  const std::string type = keys.file().string(keys.full("rope.scaling.type")).value_or("");
  const float legacy = keys.number("rope.scale_linear", 1);
  if (type != "" && type != "none" && type != "linear")
    keys.fail("rope.scaling.type", fmt::format("is '{}'; none and linear are supported, choose another model", type));
  const float factor = type == "linear" ? keys.number("rope.scaling.factor", legacy) : type == "" ? legacy : 1;
  if (!(factor > 0) || !std::isfinite(factor)) keys.fail("rope.scaling.factor", "must be positive");
  if (factor == 1) return std::nullopt;
  return RopeScaling{"linear", factor, 1, 4, 8192};
}

const GgufTensor* find_tensor(const GgufFile& file, std::string_view name) {
  for (const GgufTensor& tensor : file.tensors)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

std::optional<int> token_id(const GgufFile& file, const char* key, size_t tokens) {
  const auto id = file.integer(key);
  if (!id || *id == -1 || *id == 0xffffffff) return std::nullopt;  // how converters write "none"
  if (*id < 0 || static_cast<uint64_t>(*id) >= tokens)
    throw Error(fmt::format("{}: metadata '{}' is {}, beyond the vocabulary of {} tokens; the file is damaged",
                            file.place, key, *id, tokens));
  return static_cast<int>(*id);
}

template <class T>
std::vector<T> parallel_list(const GgufFile& file, const char* key, size_t tokens) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return {};
  const auto* array = std::get_if<GgufArray>(value);
  const auto* list = array != nullptr ? std::get_if<std::vector<T>>(&array->items) : nullptr;
  if (list == nullptr || list->size() != tokens)
    throw Error(fmt::format("{}: metadata '{}' must be a list with one {} for each of the {} tokens; the file is "
                            "damaged", file.place, key, std::is_same_v<T, float> ? "float" : "int32", tokens));
  return *list;
}

}  // namespace

ModelConfig gguf_config(const GgufFile& file) {
  const std::string architecture = file.string("general.architecture").value_or("");
  if (architecture != "llama" && architecture != "gpt2")
    throw Error(fmt::format("{}: architecture '{}' is not supported; known: llama (SmolLM2, Llama 2 and 3, "
                            "TinyLlama), gpt2", file.place, architecture));
  const Keys keys(file, architecture);
  refuse_unsupported(keys);
  ModelConfig c;
  c.family = architecture;
  c.hidden = keys.size("embedding_length");
  c.layers = keys.size("block_count");
  c.heads = keys.size("attention.head_count");
  c.kv_heads = keys.maybe_size("attention.head_count_kv").value_or(c.heads);
  c.head_dim = keys.maybe_size("attention.key_length").value_or(c.heads > 0 ? c.hidden / c.heads : 0);
  c.ffn = keys.size("feed_forward_length");
  c.context = keys.size("context_length");
  const bool llama = architecture == "llama";
  const char* epsilon = llama ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
  if (file.find(keys.full(epsilon)) == nullptr) keys.fail(epsilon, "is missing; the file is incomplete");
  c.norm_eps = keys.number(epsilon, 0);
  c.rope_theta = keys.number("rope.freq_base", 10000.0);
  c.rope_scaling = read_scaling(keys);
  if (keys.maybe_size("attention.value_length").value_or(c.head_dim) != c.head_dim)
    keys.fail("attention.value_length", "differs from the key length, which is not supported; choose another model");
  if (llama && keys.maybe_size("rope.dimension_count").value_or(c.head_dim) != c.head_dim)
    keys.fail("rope.dimension_count", "is not the size of a head, which is not supported; choose another model");

  const GgufTensor* embedding = find_tensor(file, "token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2)
    throw Error(fmt::format("{}: tensor 'token_embd.weight' is missing; the file is incomplete or holds only a "
                            "vocabulary", file.place));
  if (embedding->shape[0] > (1 << 24))
    throw Error(fmt::format("{}: tensor 'token_embd.weight' has {} rows, more than any vocabulary; the file is damaged",
                            file.place, embedding->shape[0]));
  c.vocab = static_cast<int>(embedding->shape[0]);
  if (keys.maybe_size("vocab_size").value_or(c.vocab) != c.vocab)
    keys.fail("vocab_size", fmt::format("differs from the embedding's {} rows; the file is damaged", c.vocab));
  const auto* tokens = file.strings("tokenizer.ggml.tokens");
  if (tokens != nullptr && tokens->size() > static_cast<size_t>(c.vocab))
    throw Error(fmt::format("{}: the tokenizer has {} tokens, the embedding only {} rows; the file is damaged",
                            file.place, tokens->size(), c.vocab));
  c.tied_embeddings = find_tensor(file, "output.weight") == nullptr;
  c.attention_bias = find_tensor(file, llama ? "blk.0.attn_q.bias" : "blk.0.attn_qkv.bias") != nullptr;
  c.mlp_bias = find_tensor(file, "blk.0.ffn_down.bias") != nullptr;
  check_model_config(c, file.place);
  return c;
}

Vocabulary gguf_vocabulary(GgufFile file) {
  Vocabulary v;
  v.model = file.string("tokenizer.ggml.model").value_or("");
  v.pre = file.string("tokenizer.ggml.pre").value_or("");
  v.tokens = file.take_strings("tokenizer.ggml.tokens");
  v.merges = file.take_strings("tokenizer.ggml.merges");
  v.scores = parallel_list<float>(file, "tokenizer.ggml.scores", v.tokens.size());
  v.types = parallel_list<int32_t>(file, "tokenizer.ggml.token_type", v.tokens.size());
  v.bos = token_id(file, "tokenizer.ggml.bos_token_id", v.tokens.size());
  v.eos = token_id(file, "tokenizer.ggml.eos_token_id", v.tokens.size());
  v.unk = token_id(file, "tokenizer.ggml.unknown_token_id", v.tokens.size());
  v.pad = token_id(file, "tokenizer.ggml.padding_token_id", v.tokens.size());
  v.add_bos = file.boolean("tokenizer.ggml.add_bos_token");
  v.add_eos = file.boolean("tokenizer.ggml.add_eos_token");
  v.add_space_prefix = file.boolean("tokenizer.ggml.add_space_prefix");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = token_id(file, key, v.tokens.size()))
      if (std::find(v.end_ids.begin(), v.end_ids.end(), *id) == v.end_ids.end()) v.end_ids.push_back(*id);
  v.chat_template = file.string("tokenizer.chat_template").value_or("");
  if (const auto* names = file.strings("tokenizer.chat_templates"))
    for (const std::string& name : *names)
      if (const auto text = file.string("tokenizer.chat_template." + name)) v.named_templates[name] = *text;
  return v;
}

std::map<std::string, Tensor> gguf_tensors(const GgufFile& file, std::shared_ptr<const void> owner,
                                           ModelConfig& config) {
  std::map<std::string, Tensor> tensors;
  if (config.family != "llama") {  // names as they are
    for (const GgufTensor& t : file.tensors) tensors[t.name] = Tensor{t.type, t.shape, t.data, owner};
    return tensors;
  }
  struct Permuted {
    Tensor* tensor;
    int heads;
    size_t row_bytes;
    std::shared_ptr<ByteBuffer> copy;  // one each: who has no more use for one lets it go
  };
  std::vector<Permuted> permuted;
  for (const GgufTensor& t : file.tensors) {
    Tensor tensor{t.type, t.shape, t.data, owner};
    if (t.name == "rope_freqs.weight") {
      if (t.type != DType::kF32 || tensor.elements() != config.head_dim / 2)
        throw Error(fmt::format("{}: tensor 'rope_freqs.weight' must hold {} F32 values; the file is damaged",
                                file.place, config.head_dim / 2));
      config.rope_factors.resize(static_cast<size_t>(tensor.elements()));
      dequantize_row(t.type, t.data, tensor.elements(), config.rope_factors.data());
      for (const float factor : config.rope_factors)
        if (!(factor > 0) || !std::isfinite(factor))
          throw Error(fmt::format("{}: tensor 'rope_freqs.weight' holds {}, each value must be positive; the file is "
                                  "damaged", file.place, factor));
      continue;
    }
    const auto name = llama_name_from_gguf(t.name);
    if (!name)
      throw Error(fmt::format("{}: tensor '{}' is not part of a llama model as Thimble knows it; choose another model",
                              file.place, t.name));
    const int heads = permuted_heads(*name, config);
    Tensor& placed = tensors[*name] = std::move(tensor);
    if (heads == 0) continue;
    // A bias counts as rows of one element.
    if (placed.shape[0] != int64_t{heads} * config.head_dim || (placed.shape.size() == 1 && is_quantized(placed.type)))
      throw Error(fmt::format("{}: tensor '{}' has {} rows where the metadata asks for {}; the file is damaged",
                              file.place, t.name, placed.shape[0], int64_t{heads} * config.head_dim));
    permuted.push_back({&placed, heads, placed.bytes() / static_cast<size_t>(placed.shape[0]),
                        std::make_shared<ByteBuffer>(placed.bytes())});
  }
  threads().parallel_for(static_cast<int64_t>(permuted.size()), [&](int64_t i, int) {
    const Permuted& p = permuted[static_cast<size_t>(i)];
    rows_from_gguf(p.tensor->data, p.copy->data(), p.heads, config.head_dim, p.row_bytes);
  });
  for (const Permuted& p : permuted) {
    p.tensor->data = p.copy->data();
    p.tensor->owner = p.copy;
  }
  return tensors;
}

}  // namespace thimble
