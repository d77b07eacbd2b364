#include <fmt/core.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/thread_pool.h"
#include "kernels/packed_layout.h"
#include "kernels/packed_matmul.h"
#include "kernels/weight_memory.h"
#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {
using packed::kGroup;
using packed::kLanes;
using packed::UnitLayout;

PackedKind kind_of(DType type, MatmulPrecision precision) {
  if (type == DType::kF16) return PackedKind::kF16;  // converted exactly in registers: serves both paths
  if (precision == MatmulPrecision::kF32) return PackedKind::kF32;
  switch (type) {
    case DType::kF32:
      return PackedKind::kF32;
    case DType::kF16:
      return PackedKind::kF16;
    case DType::kBF16:
      return PackedKind::kBF16;
    case DType::kQ8_0:
      return PackedKind::kU8;
    case DType::kQ4_0:
      return PackedKind::kU4;
    case DType::kQ4_1:
      return PackedKind::kU4Min;
    case DType::kQ5_0:
      return PackedKind::kU5;
    case DType::kQ5_1:
      return PackedKind::kU5Min;
    case DType::kQ4_K:
      return PackedKind::kU4Super;
    case DType::kQ5_K:
      return PackedKind::kU5Super;
    case DType::kQ6_K:
      return PackedKind::kU6;
  }
  return PackedKind::kF32;
}

void put16(std::byte* at, uint16_t value) { std::memcpy(at, &value, sizeof value); }

void nibbles(const uint8_t* bytes, uint8_t* codes) {  // 16 bytes -> 32 codes
  for (int j = 0; j < 16; ++j) {
    codes[j] = bytes[j] & 15;
    codes[j + 16] = bytes[j] >> 4;
  }
}

void fifth_bits(const uint8_t* high, uint8_t* codes) {  // bit j of `high` is bit 4 of code j
  uint32_t bits;
  std::memcpy(&bits, high, sizeof bits);
  for (int j = 0; j < kGroup; ++j) codes[j] |= static_cast<uint8_t>(((bits >> j) & 1) << 4);
}

// Reads group g (of the row) into codes and writes the scale and min of `lane` into the unit; g_unit is the group's
// place in its unit.
void read_group(DType type, const std::byte* row, int64_t g, int lane, int g_unit, const UnitLayout& layout,
                std::byte* unit, uint8_t* codes) {
  std::byte* const scale = unit + layout.scale + 2 * (g_unit * kLanes + lane);
  std::byte* const min = unit + layout.min + 2 * (g_unit * kLanes + lane);
  switch (type) {
    case DType::kQ5_0: {
      const auto& block = reinterpret_cast<const BlockQ5_0*>(row)[g];
      nibbles(block.quants, codes);
      fifth_bits(block.high, codes);
      return put16(scale, block.scale);
    }
    case DType::kQ5_1: {
      const auto& block = reinterpret_cast<const BlockQ5_1*>(row)[g];
      nibbles(block.quants, codes);
      fifth_bits(block.high, codes);
      put16(min, block.min);
      return put16(scale, block.scale);
    }
    case DType::kQ8_0: {
      const auto& block = reinterpret_cast<const BlockQ8_0*>(row)[g];
      for (int j = 0; j < kGroup; ++j) codes[j] = static_cast<uint8_t>(block.quants[j]) ^ 0x80u;  // q + 128
      return put16(scale, block.scale);
    }
    case DType::kQ4_K: {
      const auto& block = reinterpret_cast<const BlockQ4_K*>(row)[g / 8];
      const uint8_t* quants = block.quants + 32 * (g_unit / 2);
      for (int j = 0; j < kGroup; ++j) codes[j] = (quants[j] >> (4 * (g_unit % 2))) & 15;
      const ScaleMin sub = scale_min_k4(block.scales, g_unit);
      unit[layout.sub_scale + g_unit * kLanes + lane] = std::byte{sub.scale};
      unit[layout.sub_min + g_unit * kLanes + lane] = std::byte{sub.min};
      put16(unit + layout.scale + 2 * lane, block.scale);
      return put16(unit + layout.min + 2 * lane, block.min ^ 0x8000u);
    }
    case DType::kQ5_K: {
      const auto& block = reinterpret_cast<const BlockQ5_K*>(row)[g / 8];
      const uint8_t* quants = block.quants + 32 * (g_unit / 2);
      for (int j = 0; j < kGroup; ++j)
        codes[j] =
            static_cast<uint8_t>(((quants[j] >> (4 * (g_unit % 2))) & 15) | (((block.high[j] >> g_unit) & 1) << 4));
      const ScaleMin sub = scale_min_k4(block.scales, g_unit);
      unit[layout.sub_scale + g_unit * kLanes + lane] = std::byte{sub.scale};
      unit[layout.sub_min + g_unit * kLanes + lane] = std::byte{sub.min};
      put16(unit + layout.scale + 2 * lane, block.scale);
      return put16(unit + layout.min + 2 * lane, block.min ^ 0x8000u);
    }
    case DType::kQ6_K: {
      const auto& block = reinterpret_cast<const BlockQ6_K*>(row)[g / 8];
      const int half = g_unit / 4, quarter = g_unit % 4;  // elements quarter * 32 .. of the half's 128
      const uint8_t* low = block.low + 64 * half + 32 * (quarter % 2);
      const uint8_t* high = block.high + 32 * half;
      for (int j = 0; j < kGroup; ++j)
        codes[j] =
            static_cast<uint8_t>(((low[j] >> (4 * (quarter / 2))) & 15) | (((high[j] >> (2 * quarter)) & 3) << 4));
      for (int h = 0; h < 2; ++h)
        unit[layout.sub_scale + (2 * g_unit + h) * kLanes + lane] =
            static_cast<std::byte>(block.scales[2 * g_unit + h]);
      return put16(unit + layout.scale + 2 * lane, block.scale);
    }
    default:
      assert(false && "not a quantised type");
  }
}

uint32_t quad(const uint8_t* codes, int j) {
  uint32_t value;
  std::memcpy(&value, codes + 4 * j, sizeof value);
  return value;
}

// Interleaves 16 lanes' codes of one group.
void write_codes(PackedKind kind, const uint8_t (*codes)[kGroup], int g_unit, const UnitLayout& layout,
                 std::byte* unit) {
  auto* out = reinterpret_cast<uint32_t*>(unit + static_cast<ptrdiff_t>(g_unit) * layout.code_bytes);
  if (kind == PackedKind::kU8) {
    for (int j = 0; j < packed::kQuads; ++j)
      for (int lane = 0; lane < kLanes; ++lane) out[j * kLanes + lane] = quad(codes[lane], j);
    return;
  }
  for (int j = 0; j < packed::kQuads / 2; ++j)
    for (int lane = 0; lane < kLanes; ++lane)
      out[j * kLanes + lane] = (quad(codes[lane], j) & 0x0f0f0f0fu) | ((quad(codes[lane], j + 4) & 0x0f0f0f0fu) << 4);
  if (layout.high_bytes == 0) return;
  auto* high = reinterpret_cast<uint32_t*>(unit + layout.high + static_cast<ptrdiff_t>(g_unit) * layout.high_bytes);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (layout.high_bytes == 64) {
      uint32_t bits = 0;
      for (int j = 0; j < packed::kQuads; ++j) bits |= ((quad(codes[lane], j) >> 4) & 0x01010101u) << j;
      high[lane] = bits;
    } else {
      for (int half = 0; half < 2; ++half) {
        uint32_t bits = 0;
        for (int i = 0; i < 4; ++i) bits |= ((quad(codes[lane], 4 * half + i) >> 4) & 0x03030303u) << (2 * i);
        high[half * kLanes + lane] = bits;
      }
    }
  }
}

// Blocks of Q4_0 and Q4_1 hold quads i and i + 4 in the halves of the same bytes, as units do: whole words move.
template <class Block>
void pack_nibbles(const Tensor& weight, PackedKind kind, int64_t tile, std::byte* out) {
  const UnitLayout layout = packed::unit_layout(kind);
  const int64_t groups = weight.cols() / kGroup;
  const int64_t first = tile * kLanes;
  const int lanes = static_cast<int>(std::min<int64_t>(kLanes, weight.rows() - first));  // the others stay zero
  for (int64_t g = 0; g < groups; ++g) {
    const auto g_unit = static_cast<ptrdiff_t>(g % layout.groups);
    std::byte* const unit = out + (g / layout.groups) * layout.bytes;
    auto* const codes = reinterpret_cast<uint32_t*>(unit + g_unit * layout.code_bytes);
    for (int lane = 0; lane < lanes; ++lane) {
      const auto& block = reinterpret_cast<const Block*>(weight.row(first + lane))[g];
      for (int j = 0; j < packed::kQuads / 2; ++j) codes[j * kLanes + lane] = quad(block.quants, j);
      put16(unit + layout.scale + 2 * (g_unit * kLanes + lane), block.scale);
      if constexpr (std::is_same_v<Block, BlockQ4_1>)
        put16(unit + layout.min + 2 * (g_unit * kLanes + lane), block.min);
    }
  }
}

void pack_quantized(const Tensor& weight, PackedKind kind, int64_t tile, std::byte* out) {
  const UnitLayout layout = packed::unit_layout(kind);
  const int64_t groups = weight.cols() / kGroup;
  uint8_t codes[kLanes][kGroup];
  for (int64_t g = 0; g < groups; ++g) {
    const int g_unit = static_cast<int>(g % layout.groups);
    std::byte* unit = out + (g / layout.groups) * layout.bytes;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t row = tile * kLanes + lane;
      if (row < weight.rows())
        read_group(weight.type, weight.row(row), g, lane, g_unit, layout, unit, codes[lane]);
      else
        std::memset(codes[lane], 0, kGroup);  // its scale and min stay zero
    }
    write_codes(kind, codes, g_unit, layout, unit);
  }
}

void pack_floats(const Tensor& weight, PackedKind kind, int64_t tile, std::byte* out) {
  const int64_t in = weight.cols();
  std::vector<float> values(kind == PackedKind::kF32 ? static_cast<size_t>(in) : 0);
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t row = tile * kLanes + lane;
    if (row >= weight.rows()) return;  // fresh memory is zero
    if (kind == PackedKind::kF32) {
      dequantize_row(weight.type, weight.row(row), in, values.data());
      auto* to = reinterpret_cast<float*>(out);
      for (int64_t k = 0; k < in; ++k) to[k * kLanes + lane] = values[static_cast<size_t>(k)];
      continue;
    }
    const std::byte* from = weight.row(row);
    for (int64_t k = 0; k < in; ++k) {
      const int64_t at = kind == PackedKind::kF16 ? k * kLanes + lane : (k / 2) * 2 * kLanes + 2 * lane + k % 2;
      std::memcpy(out + 2 * at, from + 2 * k, 2);
    }
  }
}

}  // namespace

size_t packed_bytes(DType type, int64_t out, int64_t in, MatmulPrecision precision) {
  const PackedKind kind = kind_of(type, precision);
  const int64_t tiles = (out + kLanes - 1) / kLanes;
  return static_cast<size_t>(tiles * packed::unit_count(kind, in)) *
         static_cast<size_t>(packed::unit_layout(kind).bytes);
}

PackedWeight PackedWeight::pack(const Tensor& weight, MatmulPrecision precision) {
  if (weight.shape.size() != 2)
    throw Error(
        fmt::format("a linear layer's weight must have two dimensions, not {}; the model file is not one that "
                    "can be run",
                    weight.shape.size()));
  PackedWeight packed;
  packed.kind_ = kind_of(weight.type, precision);
  packed.precision_ = precision;
  packed.out_ = weight.rows();
  packed.in_ = weight.cols();
  const UnitLayout layout = packed::unit_layout(packed.kind_);
  packed.tile_bytes_ =
      static_cast<size_t>(packed::unit_count(packed.kind_, packed.in_)) * static_cast<size_t>(layout.bytes);
  const int64_t tiles = (packed.out_ + kLanes - 1) / kLanes;
  packed.bytes_ = static_cast<size_t>(tiles) * packed.tile_bytes_;
  const std::shared_ptr<std::byte> data = allocate_weights(packed.bytes_);
  const auto pack_tile = [&](int64_t tile) {
    std::byte* out = data.get() + static_cast<size_t>(tile) * packed.tile_bytes_;
    if (packed.kind_ == PackedKind::kU4)
      pack_nibbles<BlockQ4_0>(weight, packed.kind_, tile, out);
    else if (packed.kind_ == PackedKind::kU4Min)
      pack_nibbles<BlockQ4_1>(weight, packed.kind_, tile, out);
    else if (layout.groups > 0)
      pack_quantized(weight, packed.kind_, tile, out);
    else
      pack_floats(weight, packed.kind_, tile, out);
  };
  // In pieces that leave memory as soon as they are packed, or a large model would stand in it twice.
  constexpr size_t kPiece = size_t{1} << 20;
  const size_t tile_source = kLanes * weight.row_bytes();
  const int64_t per_piece = std::clamp<int64_t>(static_cast<int64_t>(kPiece / std::max<size_t>(1, tile_source)), 1,
                                                std::max<int64_t>(1, tiles / (4 * threads().size())));
  threads().parallel_for((tiles + per_piece - 1) / per_piece, [&](int64_t piece, int) {
    const int64_t first = piece * per_piece, last = std::min(tiles, first + per_piece);
    for (int64_t tile = first; tile < last; ++tile) pack_tile(tile);
    const int64_t first_row = first * kLanes, last_row = std::min(weight.rows(), last * kLanes);
    let_go_of_mapped({weight.row(first_row), weight.row(last_row)});
  });
  packed.data_ = data;
  return packed;
}

}  // namespace thimble
