#include "formats/splitting_rules.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace thimble {
namespace {

using nlohmann::json;

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

json sequence(json first, bool use_regex) {
  return {{"type", "Sequence"}, {"pretokenizers", {std::move(first), byte_level(use_regex)}}};
}

json split(const char* regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

struct Rule {
  std::vector<std::string_view> names;  // the first is written
  json pre_tokenizer;
};

const std::vector<Rule>& rules() {
  static const std::vector<Rule> all = {
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"},
       sequence({{"type", "Digits"}, {"individual_digits", true}}, true)},
      {{"gpt-2", "phi-2", "olmo", "mpt"}, byte_level(true)},
      {{"llama-bpe", "llama3", "llama-v3"}, sequence(split(kLlama3), false)},
      {{"qwen2", "deepseek-r1-qwen"}, sequence(split(kQwen2), false)},
  };
  return all;
}

// Fields that newer or older writers leave out stand at their defaults; trim_offsets does not change tokens.
json normalised(json step) {
  if (!step.is_object()) return step;
  if (step.value("type", "") == "Sequence" && step.contains("pretokenizers") && step["pretokenizers"].is_array()) {
    for (json& inner : step["pretokenizers"]) inner = normalised(std::move(inner));
  } else if (step.value("type", "") == "ByteLevel") {
    step["trim_offsets"] = true;
    if (!step.contains("use_regex")) step["use_regex"] = true;
  }
  return step;
}

}  // namespace

std::optional<std::string> splitting_rule_name(const json& pre_tokenizer) {
  const json wanted = normalised(pre_tokenizer);
  for (const Rule& rule : rules())
    if (rule.pre_tokenizer == wanted) return std::string(rule.names.front());
  return std::nullopt;
}

std::optional<json> splitting_rule_json(std::string_view name) {
  for (const Rule& rule : rules())
    if (std::find(rule.names.begin(), rule.names.end(), name) != rule.names.end()) return rule.pre_tokenizer;
  return std::nullopt;
}

}  // namespace thimble
