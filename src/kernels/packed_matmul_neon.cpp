#include "kernels/packed_layout.h"

#if defined(__aarch64__)
#define THIMBLE_NEON
#include "kernels/packed_neon_tile.h"

// What every 64-bit ARM has: products of bytes are 16 bits wide.
namespace thimble::packed {
namespace {

struct WideProducts {
  template <PackedKind kKind, int kRows, int kRegisters, int kQuad, int kCount>
  THIMBLE_NEON_INLINE static void add(const std::byte* unit, int64_t g, int lane, const int8_t* x,
                                      int32x4_t dot[kRows][kRegisters]) {
    add_four<kKind, kRows, kRegisters, kQuad>(unit, g, lane, x, dot);
    if constexpr (kCount == 8) add_four<kKind, kRows, kRegisters, kQuad + 4>(unit, g, lane, x, dot);
  }

 private:
  template <PackedKind kKind, int kRows, int kRegisters, int kQuad>
  THIMBLE_NEON_INLINE static void add_four(const std::byte* unit, int64_t g, int lane, const int8_t* x,
                                           int32x4_t dot[kRows][kRegisters]) {
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) {
      const int at = lane + kPerRegister * v;
      const int8x16_t w[4] = {load_codes<kKind, kQuad>(unit, g, at), load_codes<kKind, kQuad + 1>(unit, g, at),
                              load_codes<kKind, kQuad + 2>(unit, g, at), load_codes<kKind, kQuad + 3>(unit, g, at)};
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const int8_t* codes = x + r * kGroup + 4 * kQuad;
        dot[r][v] = vaddq_s32(dot[r][v], kKind == PackedKind::kU8 ? bytes(w, codes) : six_bits(w, codes));
      }
    }
  }

  // Four bytes of a row, beside each of four lanes.
  THIMBLE_NEON_INLINE static int8x16_t quad(const int8_t* codes) {
    int32_t value;
    __builtin_memcpy(&value, codes, sizeof value);
    return vreinterpretq_s8_s32(vdupq_n_s32(value));
  }
  THIMBLE_NEON_INLINE static int32x4_t add_pairs(int32x4_t low, int32x4_t high) { return vpaddq_s32(low, high); }

  // Four products of 63 * 128 stay below 2^15.
  THIMBLE_NEON_INLINE static int32x4_t six_bits(const int8x16_t w[4], const int8_t* codes) {
    int8x16_t a = quad(codes);
    int16x8_t low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(a)), high = vmull_high_s8(w[0], a);
#pragma GCC unroll 3
    for (int i = 1; i < 4; ++i) {
      a = quad(codes + 4 * i);
      low = vmlal_s8(low, vget_low_s8(w[i]), vget_low_s8(a));
      high = vmlal_high_s8(high, w[i], a);
    }
    return add_pairs(vpaddlq_s16(low), vpaddlq_s16(high));
  }
  // One product of 128 * 128 does; two may not.
  THIMBLE_NEON_INLINE static int32x4_t bytes(const int8x16_t w[4], const int8_t* codes) {
    int32x4_t low = vdupq_n_s32(0), high = low;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int8x16_t a = quad(codes + 4 * i);
      low = vpadalq_s16(low, vmull_s8(vget_low_s8(w[i]), vget_low_s8(a)));
      high = vpadalq_s16(high, vmull_high_s8(w[i], a));
    }
    return add_pairs(low, high);
  }
};

// One chain of fused multiply-adds a (row, lane), in order of k.
template <PackedKind kKind, int kRows>
void float_rows(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out, int first) {
  constexpr int kRegisters = kLanes / kPerRegister;
  float32x4_t total[kRows][kRegisters];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) total[r][v] = vdupq_n_f32(0);
  constexpr int kStep = kKind == PackedKind::kBF16 ? 2 : 1;
  for (int64_t k = 0; k < in; k += kStep) {
    const std::byte* at = weight + k / kStep * unit_layout(kKind).bytes;
    const float* x = a.values + k * a.rows + first;
    __builtin_prefetch(at + kPrefetch);
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) {
      float32x4_t w[kStep];
      if constexpr (kKind == PackedKind::kF32) w[0] = vld1q_f32(reinterpret_cast<const float*>(at) + kPerRegister * v);
      if constexpr (kKind == PackedKind::kF16) w[0] = halves_to_floats(at + 2 * kPerRegister * v);
      if constexpr (kKind == PackedKind::kBF16) {
        const uint32x4_t both = vreinterpretq_u32_u8(load_bytes(at + 16 * v));
        w[0] = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));
        w[1] = vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xffff0000u)));
      }
#pragma GCC unroll 2
      for (int step = 0; step < kStep; ++step)
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) total[r][v] = vfmaq_n_f32(total[r][v], w[step], x[step * a.rows + r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
    if (first + r < a.valid) store<kRegisters>(out, first + r, 0, total[r]);
}

template <PackedKind kKind>
void floats(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  int r = 0;
  for (; r + 4 <= a.rows; r += 4) float_rows<kKind, 4>(weight, in, a, out, r);
  for (; r < a.rows; ++r) float_rows<kKind, 1>(weight, in, a, out, r);
}

}  // namespace

TileKernel neon_kernel(PackedKind kind) {
  switch (kind) {
    case PackedKind::kF32:
      return floats<PackedKind::kF32>;
    case PackedKind::kF16:
      return floats<PackedKind::kF16>;
    case PackedKind::kBF16:
      return floats<PackedKind::kBF16>;
    default:
      return quantized_kernel<WideProducts>(kind);
  }
}

}  // namespace thimble::packed

#else
namespace thimble::packed {
TileKernel neon_kernel(PackedKind) { return nullptr; }
}  // namespace thimble::packed
#endif
