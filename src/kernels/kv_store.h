#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_layout.h"

namespace thimble {

// Write rows [count, kv_heads * head_dim] to the given slots of a layer's storage, rounding to nearest even. Of kQ8 the
// scale is a 127th of the head's largest magnitude. What is written does not depend on what is written with it.
void store_keys(const KvLayout& layout, const float* rows, int64_t count, const int32_t* slots, std::byte* keys);
void store_values(const KvLayout& layout, const float* rows, int64_t count, const int32_t* slots, std::byte* values);

}  // namespace thimble
