#pragma once

#include "models/model.h"

namespace thimble {

// One builder a family; the table in model.cpp names them.
void build_llama(const ModelFile& file, Model& model);

}  // namespace thimble
