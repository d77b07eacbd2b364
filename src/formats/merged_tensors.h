#pragma once

#include <vector>

#include "core/progress.h"
#include "formats/adapter.h"
#include "formats/model_file.h"
#include "formats/stored_types.h"
#include "formats/tensor_source.h"

namespace thimble {

// The base model's tensors with the adapter added, as sources to be written: GGUF's names and row order, or Hugging
// Face's. They refer to base and adapter.
std::vector<TensorSource> merged_tensors(const ModelFile& base, const LoraAdapter& adapter, const StoredTypes& types,
                                         bool gguf, const ProgressFn& progress);

// Throws Error where the adapter adapts a layer that the model lacks or has in another shape.
void check_fits_model(const ModelFile& base, const LoraAdapter& adapter);

// Whether the merged model's head parts from the embedding that it was tied to: the adapter has a module "lm_head".
bool unties_head(const ModelFile& base, const LoraAdapter& adapter);

}  // namespace thimble
