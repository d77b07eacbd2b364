#pragma once

#include "models/model.h"

namespace thimble {

// Throws Error, naming the tensor and the row, where a weight of the model is not a finite number: every loss and every
// gradient would be none either. Reads all weights once, on all threads.
void refuse_broken_weights(const Model& model);

}  // namespace thimble
