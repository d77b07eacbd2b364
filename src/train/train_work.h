#pragma once

#include <cstdint>

#include "models/model.h"
#include "train/trainable.h"

namespace thimble {

// The operations that an optimizer step needs at least, a multiplication and an addition counted as two: products with
// frozen weights forward and for the gradient of their input (4 an element and token), with trained ones also for their
// own gradient (6), and the head where tokens are trained. Not counted: what is computed twice to save memory,
// attention's own products, norms, the optimizer. So a share of the machine's peak in them is of useful work alone.
double step_operations(const Model& model, const Trainable& trainable, int64_t tokens, int64_t trained_tokens);

}  // namespace thimble
