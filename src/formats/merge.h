#pragma once

#include <filesystem>
#include <optional>

#include "core/progress.h"
#include "formats/adapter.h"
#include "formats/model_file.h"

namespace thimble {

// Add an adapter's products to the weights they adapt, in f32, and write the model anew as `type`. An adapter without
// modules only converts. Weights that the adapter leaves alone and that are of `type` already are copied unchanged.
// Throw Error where the adapter does not fit the model or a merged value is not finite or does not fit `type`, and
// leave nothing half-written.

// A folder that transformers loads: model.safetensors (F32, F16 or BF16), config.json, tokenizer files (copied, or
// made anew from a GGUF file's) and the adapter's manifest. `folder` must not hold anything yet.
void merge_to_safetensors(const ModelFile& base, const LoraAdapter& adapter, const std::filesystem::path& folder,
                          DType type, const ProgressFn& progress = {});

// A GGUF file that llama.cpp loads: matrices of `type` and the head of its own (see StoredTypes; the nearest type that
// fits where rows are not whole blocks), all else F32, with tokenizer and template, and the adapter's manifest as
// "thimble.job".
void merge_to_gguf(const ModelFile& base, const LoraAdapter& adapter, const std::filesystem::path& file, DType type,
                   std::optional<DType> head = {}, const ProgressFn& progress = {});

}  // namespace thimble
