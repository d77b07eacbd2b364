#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "formats/model_config.h"

namespace thimble {

// GGUF's tensor names of the Llama family and Hugging Face's; nullopt for a name that is not of that family.
std::optional<std::string> llama_name_from_gguf(std::string_view gguf_name);
std::optional<std::string> llama_name_to_gguf(std::string_view name);

// Heads whose rows GGUF keeps permuted: of q_proj and k_proj (weights and biases), else 0.
int permuted_heads(std::string_view name, const ModelConfig& config);

// llama.cpp rotates neighbouring elements (2 i, 2 i + 1) where transformers rotates (i, i + head_dim / 2), so its
// converter reorders the rows of each head. These copy heads * head_dim rows of row_bytes back and forth; rows are
// whole blocks, so nothing is rounded. `to` and `from` don't overlap.
void rows_from_gguf(const std::byte* from, std::byte* to, int heads, int head_dim, size_t row_bytes);
void rows_to_gguf(const std::byte* from, std::byte* to, int heads, int head_dim, size_t row_bytes);

}  // namespace thimble
