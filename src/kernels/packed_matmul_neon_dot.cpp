#include "kernels/packed_layout.h"

#if defined(__aarch64__)
#define THIMBLE_NEON __attribute__((target("arch=armv8.2-a+dotprod")))
#include "kernels/packed_neon_tile.h"

// With SDOT, which takes a quad of four lanes at once.
namespace thimble::packed {
namespace {

struct DotProducts {
  template <PackedKind kKind, int kRows, int kRegisters, int kQuad, int kCount>
  THIMBLE_NEON_INLINE static void add(const std::byte* unit, int64_t g, int lane, const int8_t* x,
                                      int32x4_t dot[kRows][kRegisters]) {
    int8x16_t codes[kRows];  // sixteen of each row
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) codes[r] = vld1q_s8(x + r * kGroup + 4 * kQuad);
    add_quad<kKind, kRows, kRegisters, kQuad>(unit, g, lane, codes, dot);
    add_quad<kKind, kRows, kRegisters, kQuad + 1>(unit, g, lane, codes, dot);
    add_quad<kKind, kRows, kRegisters, kQuad + 2>(unit, g, lane, codes, dot);
    add_quad<kKind, kRows, kRegisters, kQuad + 3>(unit, g, lane, codes, dot);
    if constexpr (kCount == 8) add<kKind, kRows, kRegisters, kQuad + 4, 4>(unit, g, lane, x, dot);
  }

 private:
  template <PackedKind kKind, int kRows, int kRegisters, int kQuad>
  THIMBLE_NEON_INLINE static void add_quad(const std::byte* unit, int64_t g, int lane, const int8x16_t codes[kRows],
                                           int32x4_t dot[kRows][kRegisters]) {
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) {
      const int8x16_t w = load_codes<kKind, kQuad>(unit, g, lane + kPerRegister * v);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) dot[r][v] = vdotq_laneq_s32(dot[r][v], w, codes[r], kQuad % 4);
    }
  }
};

}  // namespace

TileKernel neon_dot_kernel(PackedKind kind) { return quantized_kernel<DotProducts>(kind); }

}  // namespace thimble::packed

#else
namespace thimble::packed {
TileKernel neon_dot_kernel(PackedKind) { return nullptr; }
}  // namespace thimble::packed
#endif
