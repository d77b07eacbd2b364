#include "formats/llama_names.h"

#include <charconv>
#include <cstring>
#include <utility>

namespace thimble {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;  // GGUF's name, Hugging Face's

constexpr Pair kWhole[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
constexpr Pair kLayer[] = {
    {"attn_norm", "input_layernorm"},     {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},       {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},  {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},        {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr std::string_view kGgufLayers = "blk.";
constexpr std::string_view kLayers = "model.layers.";

// "blk.12.attn_q.weight" with prefix "blk." -> {"12", "attn_q", ".weight"}
struct LayerName {
  std::string_view index, module, kind;
};
std::optional<LayerName> split(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const size_t dot = name.find('.');
  const size_t last = name.rfind('.');
  if (dot == std::string_view::npos || last <= dot) return std::nullopt;
  const LayerName out{name.substr(0, dot), name.substr(dot + 1, last - dot - 1), name.substr(last)};
  int index = 0;
  const auto end = out.index.data() + out.index.size();
  const auto read = std::from_chars(out.index.data(), end, index);
  if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
  if (out.index.front() == '-' || (out.index.front() == '0' && out.index.size() > 1)) return std::nullopt;
  if (out.kind != ".weight" && out.kind != ".bias") return std::nullopt;
  return out;
}

void reorder(const std::byte* from, std::byte* to, int heads, int head_dim, size_t row_bytes, bool from_gguf) {
  const int half = head_dim / 2;
  for (int h = 0; h < heads; ++h) {
    for (int side = 0; side < 2; ++side) {
      for (int i = 0; i < half; ++i) {
        const auto split_row = static_cast<size_t>(h * head_dim + side * half + i) * row_bytes;
        const auto paired_row = static_cast<size_t>(h * head_dim + 2 * i + side) * row_bytes;
        std::memcpy(to + (from_gguf ? split_row : paired_row), from + (from_gguf ? paired_row : split_row), row_bytes);
      }
    }
  }
}

}  // namespace

std::optional<std::string> llama_name_from_gguf(std::string_view gguf_name) {
  for (const auto& [gguf, name] : kWhole)
    if (gguf == gguf_name) return std::string(name);
  if (const auto parts = split(gguf_name, kGgufLayers)) {
    for (const auto& [gguf, name] : kLayer)
      if (gguf == parts->module)
        return std::string(kLayers) + std::string(parts->index) + "." + std::string(name) + std::string(parts->kind);
  }
  return std::nullopt;
}

std::optional<std::string> llama_name_to_gguf(std::string_view name) {
  for (const auto& [gguf, known] : kWhole)
    if (known == name) return std::string(gguf);
  if (const auto parts = split(name, kLayers)) {
    for (const auto& [gguf, known] : kLayer)
      if (known == parts->module)
        return std::string(kGgufLayers) + std::string(parts->index) + "." + std::string(gguf) +
               std::string(parts->kind);
  }
  return std::nullopt;
}

int permuted_heads(std::string_view name, const ModelConfig& config) {
  if (name.find(".self_attn.q_proj.") != std::string_view::npos) return config.heads;
  if (name.find(".self_attn.k_proj.") != std::string_view::npos) return config.kv_heads;
  return 0;
}

void rows_from_gguf(const std::byte* from, std::byte* to, int heads, int head_dim, size_t row_bytes) {
  reorder(from, to, heads, head_dim, row_bytes, true);
}

void rows_to_gguf(const std::byte* from, std::byte* to, int heads, int head_dim, size_t row_bytes) {
  reorder(from, to, heads, head_dim, row_bytes, false);
}

}  // namespace thimble
