#pragma once

#include <string_view>

namespace thimble {

class Normalizer;
class PreTokenizer;

// What the name in tokenizer.ggml.pre stands for: how byte-level BPE models split text. The names are llama.cpp's
// (llm_tokenizer_bpe), the expressions those of the models' own tokenizer.json.
struct GgufRule {
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
};

// Adds the steps and returns the rest. Throws Error that names an unknown rule.
GgufRule add_gguf_rule(std::string_view name, Normalizer& normalizer, PreTokenizer& pre_tokenizer);

}  // namespace thimble
