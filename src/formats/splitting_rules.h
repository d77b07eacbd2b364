#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace thimble {

// How byte-level BPE tokenizers cut text into words: tokenizer.ggml.pre's names (llama.cpp's llm_tokenizer_bpe) and
// the pre_tokenizer of the same models' tokenizer.json.
std::optional<std::string> splitting_rule_name(const nlohmann::json& pre_tokenizer);
std::optional<nlohmann::json> splitting_rule_json(std::string_view name);

}  // namespace thimble
