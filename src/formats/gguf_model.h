#pragma once

#include <map>
#include <memory>
#include <string>

#include "formats/gguf.h"
#include "formats/model_config.h"
#include "formats/vocabulary.h"

namespace thimble {

// GGUF metadata as a ModelConfig; the shape of the embedding gives the vocabulary's size. An unknown architecture,
// a hyper-parameter that is unknown or unsupported, or a missing one throws Error.
ModelConfig gguf_config(const GgufFile& file);

// The tokenizer.* metadata, unread but for their types and sizes. Files without a tokenizer give an empty one. By value:
// who needs the file no more moves it here, and its long lists are not copied.
Vocabulary gguf_vocabulary(GgufFile file);

// The tensors under Hugging Face's names, query and key rows put back in order (copied; all else points into the
// file, which `owner` keeps alive). rope_freqs.weight goes to config.rope_factors. Tensors that the family does not
// know throw Error.
std::map<std::string, Tensor> gguf_tensors(const GgufFile& file, std::shared_ptr<const void> owner,
                                           ModelConfig& config);

}  // namespace thimble
