#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace thimble {

// n stored elements (a whole number of blocks) rounded to bf16, nearest even.
void unpack_bf16(DType type, const std::byte* row, int64_t n, uint16_t* out);

}  // namespace thimble
