#pragma once

#include <arm_neon.h>

#include "kernels/packed_layout.h"

// The tiles of packed_layout.h in registers of four lanes. Each of packed_matmul_neon*.cpp includes this once and
// brings the product of bytes that its instruction set has; THIMBLE_NEON, which it defines before, is the attribute
// that names the set. Everything is in an anonymous namespace, because each of them compiles it otherwise.
#define THIMBLE_NEON_INLINE THIMBLE_NEON __attribute__((always_inline)) inline

namespace thimble::packed {
namespace {

constexpr int kPerRegister = 4;  // lanes

THIMBLE_NEON_INLINE float32x4_t halves_to_floats(const std::byte* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
}

THIMBLE_NEON_INLINE uint8x16_t load_bytes(const std::byte* p) { return vld1q_u8(reinterpret_cast<const uint8_t*>(p)); }

// Quad kQuad of group g for the four lanes from `lane` on. Codes of up to 6 bits are their own signed bytes; those of
// kU8 come out less their zero.
template <PackedKind kKind, int kQuad>
THIMBLE_NEON_INLINE int8x16_t load_codes(const std::byte* unit, int64_t g, int lane) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  const std::byte* codes = unit + g * kLayout.code_bytes + 4 * lane;
  if constexpr (kKind == PackedKind::kU8)
    return vreinterpretq_s8_u8(veorq_u8(load_bytes(codes + 64 * kQuad), vdupq_n_u8(0x80)));
  const uint8x16_t both = load_bytes(codes + 64 * (kQuad % 4));
  uint8x16_t code = kQuad < 4 ? vandq_u8(both, vdupq_n_u8(15)) : vshrq_n_u8(both, 4);
  const std::byte* high = unit + kLayout.high + g * kLayout.high_bytes + 4 * lane;
  if constexpr (kLayout.high_bytes == 64) {
    const uint8x16_t bits = load_bytes(high);
    uint8x16_t fifth = bits;
    if constexpr (kQuad < 4) fifth = vshlq_n_u8(bits, 4 - kQuad);
    if constexpr (kQuad > 4) fifth = vshrq_n_u8(bits, kQuad - 4);
    code = vorrq_u8(code, vandq_u8(fifth, vdupq_n_u8(16)));
  }
  if constexpr (kLayout.high_bytes == 128) {
    const uint8x16_t bits = load_bytes(high + 64 * (kQuad / 4));
    constexpr int kPlace = 2 * (kQuad % 4);  // of the two bits, which go to place 4
    uint8x16_t two = bits;
    if constexpr (kPlace < 4) two = vshlq_n_u8(bits, 4 - kPlace);
    if constexpr (kPlace > 4) two = vshrq_n_u8(bits, kPlace - 4);
    code = vorrq_u8(code, vandq_u8(two, vdupq_n_u8(48)));
  }
  return vreinterpretq_s8_u8(code);
}

// Four bytes as floats.
template <bool kSigned>
THIMBLE_NEON_INLINE float32x4_t bytes_to_floats(const std::byte* p) {
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  const uint8x8_t packed = vcreate_u8(bytes);
  if constexpr (kSigned)
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(packed)))));
  else
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(packed))));
}

template <PackedKind kKind>
THIMBLE_NEON_INLINE float32x4_t load_scale(const std::byte* unit, int64_t g, int half, int lane) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.sub_scale == 0) return halves_to_floats(unit + kLayout.scale + 2 * (g * kLanes + lane));
  constexpr bool kSigned = kKind == PackedKind::kU6;
  const int64_t at = kLayout.sub_scale + (kSigned ? 2 * g + half : g) * kLanes + lane;
  return vmulq_f32(bytes_to_floats<kSigned>(unit + at), halves_to_floats(unit + kLayout.scale + 2 * lane));
}

template <PackedKind kKind>
THIMBLE_NEON_INLINE float32x4_t load_min(const std::byte* unit, int64_t g, int lane) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.sub_min == 0) return halves_to_floats(unit + kLayout.min + 2 * (g * kLanes + lane));
  return vmulq_f32(bytes_to_floats<false>(unit + kLayout.sub_min + g * kLanes + lane),
                   halves_to_floats(unit + kLayout.min + 2 * lane));
}

// -zero * sum of a row's codes; nothing for kU8, whose codes are signed here.
template <PackedKind kKind>
THIMBLE_NEON_INLINE int32_t start(const ActivationTile& a, int64_t g, int half, int row) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  if constexpr (kLayout.has_min || kKind == PackedKind::kU8) return 0;
  if constexpr (kKind == PackedKind::kU6) return a.halves[(2 * g + half) * a.rows + row];
  return a.correction[g * a.rows + row] * (kLayout.zero / 8);
}

template <int kRegisters>
THIMBLE_NEON_INLINE void store(const TileOutput& out, int row, int lane, const float32x4_t value[kRegisters]) {
#pragma GCC unroll 4
  for (int v = 0; v < kRegisters; ++v) {
    const int column = lane + kPerRegister * v;
    float* y = out.y + row * out.stride + column;
    if (column + kPerRegister <= out.cols) {
      float32x4_t sum = out.bias == nullptr ? value[v] : vaddq_f32(value[v], vld1q_f32(out.bias + column));
      if (out.add) sum = vaddq_f32(vld1q_f32(y), sum);
      vst1q_f32(y, sum);
      continue;
    }
    float lanes[kPerRegister];
    vst1q_f32(lanes, value[v]);
    for (int i = 0; column + i < out.cols; ++i) {
      const float sum = out.bias == nullptr ? lanes[i] : lanes[i] + out.bias[column + i];
      y[i] = out.add ? y[i] + sum : sum;
    }
  }
}

// Rows [first, first + kRows) against 4 kRegisters lanes from `lane` on. Every (row, lane) sums the same f32 products
// in the same order whatever kRows is; the integer sums are exact, so Products may take them in any order.
//   Products::add<kKind, kRows, kRegisters, kQuad, kCount>(unit, g, lane, x, dot): dot[row][register] += the products
//   of quads [kQuad, kQuad + kCount) of group g with x [kRows][kGroup].
template <class Products, PackedKind kKind, int kRows, int kRegisters>
THIMBLE_NEON void quantized_rows(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out,
                                 int first, int lane) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  constexpr int kHalves = kKind == PackedKind::kU6 ? 2 : 1;  // scales a group
  constexpr int kSteps = kQuads / kHalves;
  constexpr int kGroupBytes = kLayout.bytes / kLayout.groups;
  float32x4_t total[kRows][kRegisters];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) total[r][v] = vdupq_n_f32(0);
  const int64_t units = unit_count(kKind, in);
  for (int64_t u = 0; u < units; ++u) {
    const std::byte* unit = weight + u * kLayout.bytes;
    for (int64_t in_unit = 0; in_unit < kLayout.groups; ++in_unit) {
      if (lane == 0)
        for (int at = 0; at < kGroupBytes; at += 64) __builtin_prefetch(unit + in_unit * kGroupBytes + kPrefetch + at);
      const int64_t g = u * kLayout.groups + in_unit;
      const int8_t* high = a.high + (g * a.rows + first) * kGroup;
      const int8_t* low = a.low + (g * a.rows + first) * kGroup;
      const float* scales = a.scale + g * a.rows + first;
      const bool fine = ((a.fine[g] >> (first / kSubset)) & 1) != 0;
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) {
        int32x4_t dot[kRows][kRegisters];
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
          for (int v = 0; v < kRegisters; ++v) dot[r][v] = vdupq_n_s32(0);
        const auto add = [&](const int8_t* x) THIMBLE_NEON __attribute__((always_inline)) {
          if (half == 0)
            Products::template add<kKind, kRows, kRegisters, 0, kSteps>(unit, in_unit, lane, x, dot);
          else
            Products::template add<kKind, kRows, kRegisters, kQuads - kSteps, kSteps>(unit, in_unit, lane, x, dot);
        };
        add(high);
        if (fine) {
          // Forget the unpacked codes: keeping them for this rarer case would cost the other one its registers.
          __asm__ volatile("" ::: "memory");
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < kRegisters; ++v) dot[r][v] = vshlq_n_s32(dot[r][v], 8);
          add(low);
        }
#pragma GCC unroll 4
        for (int v = 0; v < kRegisters; ++v) {
          const float32x4_t scale = load_scale<kKind>(unit, in_unit, half, lane + kPerRegister * v);
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) {
            const int32x4_t sum = vaddq_s32(dot[r][v], vdupq_n_s32(start<kKind>(a, g, half, first + r)));
            total[r][v] = vfmaq_f32(total[r][v], vcvtq_f32_s32(sum), vmulq_n_f32(scale, scales[r]));
          }
        }
      }
      if constexpr (kLayout.has_min) {
        const float* sums = a.sum + g * a.rows + first;
#pragma GCC unroll 4
        for (int v = 0; v < kRegisters; ++v) {
          const float32x4_t min = load_min<kKind>(unit, in_unit, lane + kPerRegister * v);
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) total[r][v] = vfmaq_n_f32(total[r][v], min, sums[r]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
    if (first + r < a.valid) store<kRegisters>(out, first + r, lane, total[r]);
}

// Four rows at eight lanes a time, or two or one at all sixteen: what 32 registers hold.
template <class Products, PackedKind kKind>
THIMBLE_NEON void quantized(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  int r = 0;
  for (; r + 4 <= a.rows; r += 4)
    for (int lane = 0; lane < out.cols; lane += 8) quantized_rows<Products, kKind, 4, 2>(weight, in, a, out, r, lane);
  for (; r + 2 <= a.rows; r += 2) quantized_rows<Products, kKind, 2, 4>(weight, in, a, out, r, 0);
  if (r < a.rows) quantized_rows<Products, kKind, 1, 4>(weight, in, a, out, r, 0);
}

template <class Products>
TileKernel quantized_kernel(PackedKind kind) {
  switch (kind) {
    case PackedKind::kU8:
      return quantized<Products, PackedKind::kU8>;
    case PackedKind::kU4:
      return quantized<Products, PackedKind::kU4>;
    case PackedKind::kU4Min:
      return quantized<Products, PackedKind::kU4Min>;
    case PackedKind::kU5:
      return quantized<Products, PackedKind::kU5>;
    case PackedKind::kU5Min:
      return quantized<Products, PackedKind::kU5Min>;
    case PackedKind::kU6:
      return quantized<Products, PackedKind::kU6>;
    case PackedKind::kU4Super:
      return quantized<Products, PackedKind::kU4Super>;
    case PackedKind::kU5Super:
      return quantized<Products, PackedKind::kU5Super>;
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace thimble::packed
