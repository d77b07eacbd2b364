#pragma once

#include <span>

#include "formats/adapter.h"

namespace thimble {

// Several adapters of one base as one, each with a weight; a layer that one of them doesn't adapt gets nothing of it.
// Both throw Error where layers' shapes differ, weights and adapters don't match in number, or one is DoRA, whose
// magnitudes belong to its own sum.

// The weighted sum of what they add, exactly: matrices one below the other, so the ranks add up (PEFT's
// add_weighted_adapter with "cat").
LoraAdapter concatenate_adapters(std::span<const LoraAdapter> adapters, std::span<const double> weights);

// The matrices themselves added, a and b each with the square root of weight times scale (PEFT's "linear"): of the same
// rank as each, but not the sum of what they add. All of one rank, weights not negative.
LoraAdapter add_adapters(std::span<const LoraAdapter> adapters, std::span<const double> weights);

}  // namespace thimble
