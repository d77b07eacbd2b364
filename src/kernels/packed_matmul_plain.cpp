#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernels/packed_layout.h"
#include "tensor/half.h"

// The reference: what the fast kernels compute, element by element, on any machine.
namespace thimble::packed {
namespace {

uint8_t byte_at(const std::byte* p, int64_t offset) { return static_cast<uint8_t>(p[offset]); }

float half_at(const std::byte* p, int64_t index) {
  uint16_t bits;
  std::memcpy(&bits, p + 2 * index, sizeof bits);
  return f16_to_f32(bits);
}

int code(PackedKind kind, const UnitLayout& layout, const std::byte* unit, int g, int lane, int k) {
  const std::byte* codes = unit + static_cast<ptrdiff_t>(g) * layout.code_bytes;
  const int j = k / 4, in_quad = 4 * lane + k % 4;
  if (kind == PackedKind::kU8) return byte_at(codes, 64 * j + in_quad);
  int value = (byte_at(codes, 64 * (j % 4) + in_quad) >> (j < 4 ? 0 : 4)) & 15;
  const std::byte* high = unit + layout.high + static_cast<ptrdiff_t>(g) * layout.high_bytes;
  if (layout.high_bytes == 64) value |= ((byte_at(high, in_quad) >> j) & 1) << 4;
  if (layout.high_bytes == 128) value |= ((byte_at(high, 64 * (j / 4) + in_quad) >> (2 * (j % 4))) & 3) << 4;
  return value;
}

// Of the group's half; the same for both but in kU6.
float scale(PackedKind kind, const UnitLayout& layout, const std::byte* unit, int g, int half, int lane) {
  if (layout.sub_scale == 0) return half_at(unit + layout.scale, g * kLanes + lane);
  const float whole = half_at(unit + layout.scale, lane);
  if (kind == PackedKind::kU6)
    return whole * static_cast<float>(static_cast<int8_t>(unit[layout.sub_scale + (2 * g + half) * kLanes + lane]));
  return whole * static_cast<float>(byte_at(unit, layout.sub_scale + g * kLanes + lane));
}

float min(const UnitLayout& layout, const std::byte* unit, int g, int lane) {
  if (layout.sub_min == 0) return half_at(unit + layout.min, g * kLanes + lane);
  return half_at(unit + layout.min, lane) * static_cast<float>(byte_at(unit, layout.sub_min + g * kLanes + lane));
}

void store(const TileOutput& out, int row, int lane, float value) {
  float& y = out.y[row * out.stride + lane];
  if (out.bias != nullptr) value += out.bias[lane];
  y = out.add ? y + value : value;
}

template <PackedKind kKind>
void quantized(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  constexpr UnitLayout kLayout = unit_layout(kKind);
  const int64_t groups = std::min(group_count(in), unit_count(kKind, in) * kLayout.groups);
  for (int row = 0; row < a.valid; ++row) {
    for (int lane = 0; lane < out.cols; ++lane) {
      float total = 0;
      for (int64_t g = 0; g < groups; ++g) {
        const std::byte* unit = weight + (g / kLayout.groups) * kLayout.bytes;
        const int g_unit = static_cast<int>(g % kLayout.groups);
        const bool fine = ((a.fine[g] >> (row / kSubset)) & 1) != 0;
        int32_t dot[2] = {0, 0};
        for (int k = 0; k < kGroup; ++k) {
          const int64_t at = (g * a.rows + row) * kGroup + k;
          const int32_t x = fine ? a.high[at] * 256 + a.low[at] : a.high[at];
          dot[k / 16] += (code(kKind, kLayout, unit, g_unit, lane, k) - kLayout.zero) * x;
        }
        const float d = a.scale[g * a.rows + row];
        if (kKind == PackedKind::kU6) {
          for (int half = 0; half < 2; ++half)
            total += static_cast<float>(dot[half]) * (scale(kKind, kLayout, unit, g_unit, half, lane) * d);
        } else {
          total += static_cast<float>(dot[0] + dot[1]) * (scale(kKind, kLayout, unit, g_unit, 0, lane) * d);
        }
        if (kLayout.has_min) total += min(kLayout, unit, g_unit, lane) * a.sum[g * a.rows + row];
      }
      store(out, row, lane, total);
    }
  }
}

float float_at(PackedKind kind, const std::byte* weight, int64_t k, int lane) {
  if (kind == PackedKind::kF16) return half_at(weight, k * kLanes + lane);
  if (kind == PackedKind::kF32) {
    float value;
    std::memcpy(&value, weight + 4 * (k * kLanes + lane), sizeof value);
    return value;
  }
  uint16_t bits;  // bf16, in pairs
  std::memcpy(&bits, weight + 2 * ((k / 2) * 2 * kLanes + 2 * lane + k % 2), sizeof bits);
  return bf16_to_f32(bits);
}

template <PackedKind kKind>
void floats(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  for (int row = 0; row < a.valid; ++row) {
    for (int lane = 0; lane < out.cols; ++lane) {
      float total = 0;
      for (int64_t k = 0; k < in; ++k) total += float_at(kKind, weight, k, lane) * a.values[k * a.rows + row];
      store(out, row, lane, total);
    }
  }
}

}  // namespace

TileKernel plain_kernel(PackedKind kind, int) {
  switch (kind) {
    case PackedKind::kF32:
      return floats<PackedKind::kF32>;
    case PackedKind::kF16:
      return floats<PackedKind::kF16>;
    case PackedKind::kBF16:
      return floats<PackedKind::kBF16>;
    case PackedKind::kU8:
      return quantized<PackedKind::kU8>;
    case PackedKind::kU4:
      return quantized<PackedKind::kU4>;
    case PackedKind::kU4Min:
      return quantized<PackedKind::kU4Min>;
    case PackedKind::kU5:
      return quantized<PackedKind::kU5>;
    case PackedKind::kU5Min:
      return quantized<PackedKind::kU5Min>;
    case PackedKind::kU6:
      return quantized<PackedKind::kU6>;
    case PackedKind::kU4Super:
      return quantized<PackedKind::kU4Super>;
    case PackedKind::kU5Super:
      return quantized<PackedKind::kU5Super>;
  }
  return nullptr;
}

}  // namespace thimble::packed

namespace thimble {

void unpack_row(const PackedWeight& weight, int64_t row, float* out) {
  using namespace packed;
  assert(row >= 0 && row < weight.out());
  const PackedKind kind = weight.kind();
  const UnitLayout layout = unit_layout(kind);
  const std::byte* const tile = weight.tile(row / kLanes);
  const int lane = static_cast<int>(row % kLanes);
  if (layout.groups == 0) {
    for (int64_t k = 0; k < weight.in(); ++k) out[k] = float_at(kind, tile, k, lane);
    return;
  }
  for (int64_t first = 0; first < weight.in(); first += kGroup) {
    const int64_t g = first / kGroup;
    const std::byte* const unit = tile + (g / layout.groups) * layout.bytes;
    const int g_unit = static_cast<int>(g % layout.groups);
    const float scales[] = {scale(kind, layout, unit, g_unit, 0, lane), scale(kind, layout, unit, g_unit, 1, lane)};
    const float smallest = layout.has_min ? min(layout, unit, g_unit, lane) : 0.0f;
    const int count = static_cast<int>(std::min<int64_t>(kGroup, weight.in() - first));
    for (int k = 0; k < count; ++k)
      out[first + k] = scales[k / 16] * static_cast<float>(code(kind, layout, unit, g_unit, lane, k) - layout.zero) +
                       smallest;
  }
}

}  // namespace thimble
