#include "kernels/stochastic_rounding.h"

#include <bit>

#include "core/random.h"
#include "kernels/elementwise.h"
#include "tensor/half.h"

namespace thimble {

void round_stochastically(const float* x, int64_t count, uint64_t key, int64_t first, uint16_t* out) {
  simd::for_pieces(count, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(x[i]);
      if ((bits & 0x7f800000u) == 0x7f800000u) {  // infinite or not a number
        out[i] = f32_to_bf16(x[i]);
        continue;
      }
      const uint64_t drawn = random_bits(key, static_cast<uint64_t>(first + i));
      out[i] = static_cast<uint16_t>((bits + static_cast<uint32_t>(drawn >> 48)) >> 16);
    }
  });
}

}  // namespace thimble
