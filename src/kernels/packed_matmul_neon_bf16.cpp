#include "kernels/packed_layout.h"

#if defined(__aarch64__)
#define THIMBLE_NEON __attribute__((target("arch=armv8.2-a+dotprod+i8mm+bf16")))
#include "kernels/packed_neon_tile.h"

// With SMMLA, which multiplies eight bytes of two lanes with those of two rows, and BFDOT.
namespace thimble::packed {
namespace {

struct MatrixProducts {
  template <PackedKind kKind, int kRows, int kRegisters, int kQuad, int kCount>
  THIMBLE_NEON_INLINE static void add(const std::byte* unit, int64_t g, int lane, const int8_t* x,
                                      int32x4_t dot[kRows][kRegisters]) {
    if constexpr (kRows == 1) {
      add_row<kKind, kRegisters, kQuad, kCount>(unit, g, lane, x, dot[0]);
    } else {
      int32x4_t square[kRows / 2][kRegisters][2];  // [lane][row] of two lanes and rows each
#pragma GCC unroll 2
      for (int p = 0; p < kRows / 2; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < kRegisters; ++v) square[p][v][0] = square[p][v][1] = vdupq_n_s32(0);
      add_four<kKind, kRows, kRegisters, kQuad>(unit, g, lane, x, square);
      if constexpr (kCount == 8) add_four<kKind, kRows, kRegisters, kQuad + 4>(unit, g, lane, x, square);
#pragma GCC unroll 2
      for (int p = 0; p < kRows / 2; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < kRegisters; ++v) {
          const int32x4_t even = vuzp1q_s32(square[p][v][0], square[p][v][1]);
          const int32x4_t odd = vuzp2q_s32(square[p][v][0], square[p][v][1]);
          dot[2 * p][v] = vaddq_s32(dot[2 * p][v], even);
          dot[2 * p + 1][v] = vaddq_s32(dot[2 * p + 1][v], odd);
        }
    }
  }

 private:
  // Sixteen elements of every row.
  template <PackedKind kKind, int kRows, int kRegisters, int kQuad>
  THIMBLE_NEON_INLINE static void add_four(const std::byte* unit, int64_t g, int lane, const int8_t* x,
                                           int32x4_t square[kRows / 2][kRegisters][2]) {
    int8x16_t first[kRows / 2], second[kRows / 2];  // eight elements of two rows each
#pragma GCC unroll 2
    for (int p = 0; p < kRows / 2; ++p) {
      const int64x2_t even = vreinterpretq_s64_s8(vld1q_s8(x + 2 * p * kGroup + 4 * kQuad));
      const int64x2_t odd = vreinterpretq_s64_s8(vld1q_s8(x + (2 * p + 1) * kGroup + 4 * kQuad));
      first[p] = vreinterpretq_s8_s64(vzip1q_s64(even, odd));
      second[p] = vreinterpretq_s8_s64(vzip2q_s64(even, odd));
    }
    add_two<kKind, kRows, kRegisters, kQuad>(unit, g, lane, first, square);
    add_two<kKind, kRows, kRegisters, kQuad + 2>(unit, g, lane, second, square);
  }

  template <PackedKind kKind, int kRows, int kRegisters, int kQuad>
  THIMBLE_NEON_INLINE static void add_two(const std::byte* unit, int64_t g, int lane, const int8x16_t codes[kRows / 2],
                                          int32x4_t square[kRows / 2][kRegisters][2]) {
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) {
      const int at = lane + kPerRegister * v;
      const int32x4_t low = vreinterpretq_s32_s8(load_codes<kKind, kQuad>(unit, g, at));
      const int32x4_t high = vreinterpretq_s32_s8(load_codes<kKind, kQuad + 1>(unit, g, at));
      const int8x16_t lanes01 = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      const int8x16_t lanes23 = vreinterpretq_s8_s32(vzip2q_s32(low, high));
#pragma GCC unroll 2
      for (int p = 0; p < kRows / 2; ++p) {
        square[p][v][0] = vmmlaq_s32(square[p][v][0], lanes01, codes[p]);
        square[p][v][1] = vmmlaq_s32(square[p][v][1], lanes23, codes[p]);
      }
    }
  }

  template <PackedKind kKind, int kRegisters, int kQuad, int kCount>
  THIMBLE_NEON_INLINE static void add_row(const std::byte* unit, int64_t g, int lane, const int8_t* x,
                                          int32x4_t dot[kRegisters]) {
    const int8x16_t codes = vld1q_s8(x + 4 * kQuad);
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) {
      const int at = lane + kPerRegister * v;
      dot[v] = vdotq_laneq_s32(dot[v], load_codes<kKind, kQuad>(unit, g, at), codes, 0);
      dot[v] = vdotq_laneq_s32(dot[v], load_codes<kKind, kQuad + 1>(unit, g, at), codes, 1);
      dot[v] = vdotq_laneq_s32(dot[v], load_codes<kKind, kQuad + 2>(unit, g, at), codes, 2);
      dot[v] = vdotq_laneq_s32(dot[v], load_codes<kKind, kQuad + 3>(unit, g, at), codes, 3);
    }
    if constexpr (kCount == 8) add_row<kKind, kRegisters, kQuad + 4, 4>(unit, g, lane, x, dot);
  }
};

// One chain a (row, lane), in order of pairs.
template <int kRows>
THIMBLE_NEON void pair_rows(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out,
                            int first) {
  constexpr int kRegisters = kLanes / kPerRegister;
  float32x4_t total[kRows][kRegisters];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) total[r][v] = vdupq_n_f32(0);
  const int64_t count = (in + 1) / 2;
  for (int64_t p = 0; p < count; ++p) {
    const std::byte* at = weight + p * 4 * kLanes;
    __builtin_prefetch(at + kPrefetch);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const bfloat16x8_t x = vreinterpretq_bf16_u32(vdupq_n_u32(a.pairs[p * a.rows + first + r]));
#pragma GCC unroll 4
      for (int v = 0; v < kRegisters; ++v)
        total[r][v] = vbfdotq_f32(total[r][v], vreinterpretq_bf16_u8(load_bytes(at + 16 * v)), x);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
    if (first + r < a.valid) store<kRegisters>(out, first + r, 0, total[r]);
}

THIMBLE_NEON void pairs(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  int r = 0;
  for (; r + 4 <= a.rows; r += 4) pair_rows<4>(weight, in, a, out, r);
  for (; r < a.rows; ++r) pair_rows<1>(weight, in, a, out, r);
}

}  // namespace

TileKernel neon_bf16_kernel(PackedKind kind) {
  return kind == PackedKind::kBF16 ? pairs : quantized_kernel<MatrixProducts>(kind);
}

}  // namespace thimble::packed

#else
namespace thimble::packed {
TileKernel neon_bf16_kernel(PackedKind) { return nullptr; }
}  // namespace thimble::packed
#endif
