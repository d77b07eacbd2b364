#pragma once

#include <filesystem>

#include "formats/vocabulary.h"

namespace thimble {

// The tokenizer's files of a Hugging Face folder, each taken where it is there: tokenizer.json,
// tokenizer_config.json, chat_template.jinja (which wins over the config's template, as in transformers), and
// the end-of-sequence ids of generation_config.json or config.json. Throws Error where one of them is broken.
Vocabulary folder_vocabulary(const std::filesystem::path& folder);

}  // namespace thimble
