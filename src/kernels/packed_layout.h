#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cpu.h"
#include "kernels/packed_matmul.h"

// Shared by the packed product's driver and its kernels; nobody else needs it.
namespace thimble::packed {

// A tile is 16 output rows (lanes), padded with zeros at the end of the matrix. It is a sequence of units:
//   quantised kinds: value = scale * (code - zero), or scale * code + min where the kind has mins. Codes are
//     unsigned and lie as [quad j in 8][lane][4]: 64 bytes hold four consecutive elements of every lane, which is
//     what one vpdpbusd takes. In 4-bit codes quad i has the low and quad i + 4 the high halves of the same bytes.
//   kF32, kF16: [element][lane].   kBF16: [pair][lane][2].
inline constexpr int kLanes = 16;
inline constexpr int kGroup = 32;  // elements that share a scale of the activations
inline constexpr int kQuads = kGroup / 4;

// Where the parts of a unit lie, in bytes. g counts the unit's groups; scale and min are f16.
struct UnitLayout {
  int groups = 0;      // of 32 elements; 0 for the float kinds
  int code_bytes = 0;  // of a group: codes at g * code_bytes
  int high = 0;        // bits above the nibble: 64 bytes a group and bit; byte b's bit j (two bits 2 i for kU6,
  int high_bytes = 0;  //   quads 4 h + i in half h) belongs to byte b of quad j
  int sub_scale = 0;   // K types: 8-bit scales [g][lane] (kU6: signed, [g][half][lane]), times one f16 a unit
  int sub_min = 0;
  int scale = 0;  // [g][lane], or [lane] where there are sub-scales
  int min = 0;    // the same; K types: negated, times sub_min
  int bytes = 0;
  int zero = 0;  // what a code of zero weight is
  bool has_min = false;
};

constexpr UnitLayout unit_layout(PackedKind kind) {
  switch (kind) {
    case PackedKind::kU4:
      return {2, 256, 0, 0, 0, 0, 512, 0, 576, 8, false};
    case PackedKind::kU4Min:
      return {2, 256, 0, 0, 0, 0, 512, 576, 640, 0, true};
    case PackedKind::kU5:
      return {2, 256, 512, 64, 0, 0, 640, 0, 704, 16, false};
    case PackedKind::kU5Min:
      return {2, 256, 512, 64, 0, 0, 640, 704, 768, 0, true};
    case PackedKind::kU8:
      return {2, 512, 0, 0, 0, 0, 1024, 0, 1088, 128, false};
    case PackedKind::kU4Super:
      return {8, 256, 0, 0, 2048, 2176, 2304, 2336, 2368, 0, true};
    case PackedKind::kU5Super:
      return {8, 256, 2048, 64, 2560, 2688, 2816, 2848, 2880, 0, true};
    case PackedKind::kU6:
      return {8, 256, 2048, 128, 3072, 0, 3328, 0, 3392, 32, false};
    case PackedKind::kF32:
      return {0, 0, 0, 0, 0, 0, 0, 0, 64, 0, false};  // one element
    case PackedKind::kF16:
      return {0, 0, 0, 0, 0, 0, 0, 0, 32, 0, false};  // one element
    case PackedKind::kBF16:
      return {0, 0, 0, 0, 0, 0, 0, 0, 64, 0, false};  // one pair
  }
  return {};
}

// Units of a tile whose rows have `in` elements.
constexpr int64_t unit_count(PackedKind kind, int64_t in) {
  const int groups = unit_layout(kind).groups;
  if (groups > 0) return (in + groups * kGroup - 1) / (groups * kGroup);
  return kind == PackedKind::kBF16 ? (in + 1) / 2 : in;
}

// Groups that quantised activations have: whole pairs, because units hold at least two.
constexpr int64_t group_count(int64_t in) { return (in + 2 * kGroup - 1) / (2 * kGroup) * 2; }

// How far ahead of their use weights are asked for, in bytes: into the next tile, which lies behind this one. Decoding
// is limited by memory; left to the processor's own prefetching it runs at half the speed.
inline constexpr int kPrefetch = 4096;

// Kernels exist for these numbers of activation rows; other numbers are split or padded with zero rows.
inline constexpr int kRowClasses[] = {1, 2, 3, 4, 6, 8, 12, 16};
inline constexpr int kMaxRows = 16;
inline constexpr int kSubset = 4;  // rows that share the choice between one and two bytes an activation

// Activations of up to 16 rows in the forms that kernels read. Quantised: x = scale * (high * 256 + low) in groups
// that bit row / 4 of fine[group] marks, else x = scale * high. Two bytes are for the groups of a row that stand out
// of it (outlier channels; see kOutlier): one byte there costs more accuracy than in all the others together.
struct ActivationTile {
  int rows = 0;                         // as laid out: one of kRowClasses
  int valid = 0;                        // rows that exist
  const int8_t* high = nullptr;         // [group][rows][32]
  const int8_t* low = nullptr;          // the same; unset outside fine groups
  const float* scale = nullptr;         // [group][rows]
  const float* sum = nullptr;           // [group][rows]: the group's sum, for the mins
  const int32_t* correction = nullptr;  // [group][rows]: -8 * the codes' sum; other zeros are 8 times a power of two
  const int32_t* halves = nullptr;      // [group][half][rows]: -32 * the sum of 16 codes; for kU6
  const uint8_t* fine = nullptr;        // [group]
  const uint32_t* pairs = nullptr;      // [pair][rows] of two bf16, the first in the low half
  const float* values = nullptr;        // [element][rows]
};

// Where a tile's results go.
struct TileOutput {
  float* y = nullptr;  // first row, first column of the tile
  int64_t stride = 0;  // between rows
  int cols = 0;        // 1..16
  const float* bias = nullptr;
  bool add = false;
};

using TileKernel = void (*)(const std::byte* weight_tile, int64_t in, const ActivationTile&, const TileOutput&);

// A group of a row goes into two bytes where its largest magnitude exceeds this many times the row's root mean
// square. Measured on SmolLM2-135M Q4_1: KL per token 2.5e-3 without (8-bit throughout), 8e-4 at 8, 4e-4 at 4, with
// 5 % and 18 % of the groups in two bytes.
inline constexpr float kOutlier = 6.0f;

inline constexpr float kCoarseTop = 127;      // largest code in one byte
inline constexpr float kFineTop = 127 * 256;  // in two: high in [-127, 127], low in [-128, 127]
inline constexpr float kTiny = 1e-30f;        // groups below this are zero; its inverse is still finite

// What quantising writes for one ActivationTile; halves may be null.
struct QuantizedTile {
  int rows = 0;
  int valid = 0;
  int8_t* high = nullptr;
  int8_t* low = nullptr;
  float* scale = nullptr;
  float* sum = nullptr;
  int32_t* correction = nullptr;
  int32_t* halves = nullptr;
  uint8_t* fine = nullptr;
};
// x [valid, in], contiguous rows; two bytes everywhere where all_fine. The second gives what the first gives to the bit,
// on machines with AVX-512.
void quantize_rows(const float* x, int64_t in, bool all_fine, const QuantizedTile& out);
void quantize_rows_avx512(const float* x, int64_t in, bool all_fine, const QuantizedTile& out);

// What laying out writes for one ActivationTile; either may be null.
struct FloatTile {
  int rows = 0;
  int valid = 0;
  float* values = nullptr;     // whole pairs of elements
  uint32_t* pairs = nullptr;
};
// x [valid, in], contiguous rows. The second gives the same, on machines with AVX-512.
void lay_out_floats(const float* x, int64_t in, const FloatTile& out);
void lay_out_floats_avx512(const float* x, int64_t in, const FloatTile& out);

// Each instruction set's kernels; rows is one of kRowClasses. Null where the set has none.
TileKernel plain_kernel(PackedKind kind, int rows);
TileKernel avx2_kernel(PackedKind kind, int rows);
TileKernel avx512_kernel(PackedKind kind, int rows);
TileKernel avx512_float_kernel(PackedKind kind, int rows, bool bf16_products);
TileKernel neon_kernel(PackedKind kind);
TileKernel neon_dot_kernel(PackedKind kind);   // of quantised kinds
TileKernel neon_bf16_kernel(PackedKind kind);  // of quantised kinds and kBF16

}  // namespace thimble::packed
