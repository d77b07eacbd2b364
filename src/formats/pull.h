#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/progress.h"

namespace thimble {

// Where pulled models are kept: $XDG_CACHE_HOME/thimble/models, or ~/.cache/thimble/models.
std::filesystem::path model_cache();

// Brings a model into the cache, opens it to check that it can be read, and returns its path there. Sources:
//   a known name             smollm2-135m-instruct
//   a file or folder         linked into the cache (copied where that is not possible)
//   an http(s) address       of a .gguf file, or of a .safetensors file with config.json and tokenizer.json beside it
//   hf:owner/repo            a repository of the hub with safetensors, or with one GGUF file
//   hf:owner/repo/file.gguf  one GGUF file of it
// HF_ENDPOINT and HF_TOKEN are honoured for hf:. A model that is there already is not fetched again. Downloads that
// were cut go on where they ended. Throws Error.
std::filesystem::path pull(const std::string& source, const ProgressFn& progress);

// For every command: a path that exists, or a model that was pulled, by its name, its file's name or what it was
// pulled from. Throws Error that says how to get it otherwise.
std::filesystem::path resolve_model(const std::string& name_or_path);

std::vector<std::string> known_models();   // names that pull() knows by itself
std::vector<std::string> pulled_models();  // names in the cache

}  // namespace thimble
