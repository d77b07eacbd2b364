#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/vocabulary.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"

namespace thimble {

// What a tokenizer is made of, whichever format it came from.
struct TokenizerParts {
  std::vector<std::string> tokens;  // by id, added ones included; empty where an id is no token
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<Bpe> model;
  TokenDecoder decoder;
  std::vector<int32_t> prefix, suffix;  // what add_special puts around a text
  std::optional<int32_t> bos, eos, unk, pad;
};

// Hugging Face's tokenizer.json; tokenizer_config.json, where given, names the special tokens.
TokenizerParts read_tokenizer_json(const Vocabulary& vocabulary);

// GGUF's arrays: byte-level BPE ("gpt2") and SentencePiece-style BPE ("llama"), as llama.cpp reads them.
TokenizerParts read_gguf_tokenizer(const Vocabulary& vocabulary);

}  // namespace thimble
