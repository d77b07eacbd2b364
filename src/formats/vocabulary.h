#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace thimble {

// What a model's files say about its tokenizer, unread: either Hugging Face's JSON files or GGUF's arrays.
struct Vocabulary {
  // safetensors folders
  std::string tokenizer_json;         // tokenizer.json, whole
  std::string tokenizer_config_json;  // tokenizer_config.json, whole; may be empty
  // GGUF files (tokenizer.ggml.*)
  std::string model;                // "gpt2": byte-level BPE; "llama": SentencePiece-style BPE
  std::string pre;                  // name of the splitting rule: "smollm", "llama-bpe", "qwen2", "default"
  std::vector<std::string> tokens;  // by id
  std::vector<float> scores;
  std::vector<int32_t> types;       // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
  std::vector<std::string> merges;  // "left right"
  std::optional<int> bos, eos, unk, pad;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
  // either
  std::string chat_template;  // Jinja; empty where the model has none
  std::map<std::string, std::string> named_templates;  // further ones by name: "tool_use"
  std::vector<int> end_ids;  // every id that ends an answer, as far as the files say (generation_config.json, eot)
};

}  // namespace thimble
