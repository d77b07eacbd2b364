#include "text/gguf_rules.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <vector>

#include "core/error.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace thimble {
namespace {

constexpr std::string_view kNumber = R"(\p{N})";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"()"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kFalconPunctuation = R"([\p{P}$+<=>^~|`]+)";
constexpr std::string_view kDefaultPunctuation = R"([\p{P}$+<=>^~|]+)";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";

// One row: names, expressions to split by in order, and what else differs.
struct Row {
  std::vector<std::string_view> names;
  std::vector<std::string_view> expressions;
  bool ignore_merges = false, add_bos = false, nfc = false;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> table = {
      {{"default", ""}, {kDefaultPunctuation, kGpt2Pattern, R"(\p{N}+)", kThreeDigits}},
      {{"falcon"}, {kFalconPunctuation, kGpt2Pattern, kThreeDigits}},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
       {kDigitPattern, kGpt2Pattern}},
      {{"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum",
        "modern-bert", "jais", "trillion", "granite-docling", "exaone4"},
       {kGpt2Pattern}},
      {{"mpt", "olmo"}, {kGpt2Pattern}, false, false, true},
      {{"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
       {kLlama3Pattern},
       true,
       true},
      {{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, {kLlama3Pattern}},
      {{"qwen2", "deepseek-r1-qwen", "kormo", "megrez"}, {kQwen2Pattern}, false, false, true},
      {{"qwen35"}, {kQwen35}, false, false, true},
      {{"stablelm2", "hunyuan", "solar-open", "grok-2"}, {kQwen2Pattern}},
      {{"tekken"}, {kTekken}, true, true},
      {{"gpt-4o", "llama4", "kanana2"}, {kGpt4o}},
      {{"poro-chat", "bloom", "gpt3-finnish"}, {kBloom}},
      {{"viking"}, {kBloom, kNumber}},
      {{"seed-coder"}, {kSeedCoder}},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailingPattern}},
      {{"deepseek-coder"},
       {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)",
        kNumber}},
      {{"deepseek-v3", "hunyuan-dense"},
       {R"(\p{N}{1,3})", R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)", kDeepSeek3}},
  };
  return table;
}

}  // namespace

GgufRule add_gguf_rule(std::string_view name, Normalizer& normalizer, PreTokenizer& pre_tokenizer) {
  for (const Row& row : rows()) {
    if (std::find(row.names.begin(), row.names.end(), name) == row.names.end()) continue;
    if (row.nfc) normalizer.add(Normalizer::Unicode{Normalizer::Form::kNfc});
    for (const std::string_view expression : row.expressions)
      pre_tokenizer.add(PreTokenizer::Split{Pattern::regex(expression), PreTokenizer::Behavior::kIsolated});
    pre_tokenizer.add(PreTokenizer::ByteLevel{false, false});
    return {row.ignore_merges, row.add_bos};
  }
  throw Error(
      fmt::format("tokenizer.ggml.pre names the splitting rule '{}', which is unknown here; convert the model "
                  "from its tokenizer.json or use one with a known rule",
                  name));
}

}  // namespace thimble
