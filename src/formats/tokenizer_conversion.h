#pragma once

#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/vocabulary.h"

namespace thimble {

// The tokenizer.* metadata of a GGUF file for a tokenizer that came as tokenizer.json: byte-level BPE with one of
// the splitting rules that GGUF has a name for, or SentencePiece-style BPE. `rows` is the embedding's height; ids that
// no token has become unused ones. Throws Error where GGUF can't express the tokenizer.
std::vector<GgufEntry> gguf_tokenizer(const Vocabulary& vocabulary, int rows);

// tokenizer.json and tokenizer_config.json for a tokenizer that came in a GGUF file, so that transformers splits text
// the same way. Throw Error for splitting rules that can't be written.
std::string tokenizer_json(const Vocabulary& vocabulary);
std::string tokenizer_config_json(const Vocabulary& vocabulary, int context);

}  // namespace thimble
