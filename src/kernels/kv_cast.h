#pragma once

#include <cstddef>

#include "kernels/kv_layout.h"

// Between f32 and stored elements, consecutive on both sides; chosen by cpu_level(). Scales are the caller's business.
namespace thimble {

using KvWiden = void(const std::byte* from, int count, float* to);
KvWiden* kv_widen(KvType type);

// Rounds to nearest even. Of kQ8 elements are multiplied by inverse first, which must bring them to -127 to 127; of
// other types inverse means nothing.
using KvNarrow = void(const float* from, int count, float inverse, std::byte* to);
KvNarrow* kv_narrow(KvType type);

}  // namespace thimble
