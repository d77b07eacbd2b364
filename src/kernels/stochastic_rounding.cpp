#include "kernels/stochastic_rounding.h"

#include <bit>

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
      uint64_t z = key + 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(first + i) + 1);  // splitmix64
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      out[i] = static_cast<uint16_t>((bits + static_cast<uint32_t>(z >> 48)) >> 16);
    }
  });
}

}  // namespace thimble
