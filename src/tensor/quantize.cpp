#include "tensor/quantize.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>

#include "core/thread_pool.h"
#include "tensor/blocks.h"
#include "tensor/encode_k.h"
#include "tensor/half.h"

namespace thimble {
namespace {

// Same values as f16_to_f32, written without branches so that the loop over a row becomes vector code.
inline float half_without_branches(uint16_t h) {
  const uint32_t magnitude = h & 0x7fffu;
  const uint32_t shifted = magnitude << 13;
  const uint32_t normal = shifted + (112u << 23);
  const uint32_t infinite = shifted | 0x7f800000u;
  const auto subnormal = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1.0p-24f);
  uint32_t bits = magnitude < 0x400u ? subnormal : normal;
  bits = magnitude >= 0x7c00u ? infinite : bits;
  return std::bit_cast<float>(bits | (static_cast<uint32_t>(h & 0x8000u) << 16));
}

inline uint16_t load_u16(const std::byte* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline uint32_t load_u32(const uint8_t* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

void decode(const BlockQ4_0& b, float* out) {
  const float scale = f16_to_f32(b.scale);
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>((b.quants[j] & 0xf) - 8);
    out[j + 16] = scale * static_cast<float>((b.quants[j] >> 4) - 8);
  }
}

void decode(const BlockQ4_1& b, float* out) {
  const float scale = f16_to_f32(b.scale), min = f16_to_f32(b.min);
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(b.quants[j] & 0xf) + min;
    out[j + 16] = scale * static_cast<float>(b.quants[j] >> 4) + min;
  }
}

void decode(const BlockQ5_0& b, float* out) {
  const float scale = f16_to_f32(b.scale);
  const uint32_t high = load_u32(b.high);
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(static_cast<int>((b.quants[j] & 0xfu) | (((high >> j) & 1u) << 4)) - 16);
    out[j + 16] =
        scale * static_cast<float>(static_cast<int>((b.quants[j] >> 4u) | (((high >> (j + 16)) & 1u) << 4)) - 16);
  }
}

void decode(const BlockQ5_1& b, float* out) {
  const float scale = f16_to_f32(b.scale), min = f16_to_f32(b.min);
  const uint32_t high = load_u32(b.high);
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(static_cast<int>((b.quants[j] & 0xfu) | (((high >> j) & 1u) << 4))) + min;
    out[j + 16] =
        scale * static_cast<float>(static_cast<int>((b.quants[j] >> 4u) | (((high >> (j + 16)) & 1u) << 4))) + min;
  }
}

void decode(const BlockQ8_0& b, float* out) {
  const float scale = f16_to_f32(b.scale);
  for (int j = 0; j < kBlock; ++j) out[j] = scale * static_cast<float>(b.quants[j]);
}

void decode(const BlockQ4_K& b, float* out) {
  const float scale = f16_to_f32(b.scale), min = f16_to_f32(b.min);
  for (int s = 0; s < 8; ++s) {
    const ScaleMin sub = scale_min_k4(b.scales, s);
    const float d = scale * sub.scale, m = min * sub.min;
    const uint8_t* q = b.quants + 32 * (s / 2);
    const int shift = 4 * (s % 2);
    for (int l = 0; l < 32; ++l) out[32 * s + l] = d * static_cast<float>((q[l] >> shift) & 0xf) - m;
  }
}

void decode(const BlockQ5_K& b, float* out) {
  const float scale = f16_to_f32(b.scale), min = f16_to_f32(b.min);
  for (int s = 0; s < 8; ++s) {
    const ScaleMin sub = scale_min_k4(b.scales, s);
    const float d = scale * sub.scale, m = min * sub.min;
    const uint8_t* q = b.quants + 32 * (s / 2);
    const int shift = 4 * (s % 2);
    for (int l = 0; l < 32; ++l) {
      const int value = ((q[l] >> shift) & 0xf) | (((b.high[l] >> s) & 1) << 4);
      out[32 * s + l] = d * static_cast<float>(value) - m;
    }
  }
}

void decode(const BlockQ6_K& b, float* out) {
  const float scale = f16_to_f32(b.scale);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = b.low + 64 * half;
    const uint8_t* high = b.high + 32 * half;
    for (int group = 0; group < 4; ++group) {
      const uint8_t* source = low + 32 * (group % 2);
      const int shift = 4 * (group / 2);
      for (int l = 0; l < 32; ++l) {
        const int value = ((source[l] >> shift) & 0xf) | (((high[l] >> (2 * group)) & 3) << 4);
        const float d = scale * static_cast<float>(b.scales[8 * half + 2 * group + l / 16]);
        out[128 * half + 32 * group + l] = d * static_cast<float>(value - 32);
      }
    }
  }
}

template <class Block, int kElements>
void decode_row(const std::byte* row, int64_t n, float* out) {
  for (int64_t i = 0; i < n / kElements; ++i) {
    Block block;
    std::memcpy(&block, row + static_cast<size_t>(i) * sizeof(Block), sizeof(Block));
    decode(block, out + i * kElements);
  }
}

// Truncation as the C reference has it, without its undefined cases: NaN gives 0, the ends are clamped.
inline int level(float value, int top) {
  if (!(value > 0.0f)) return 0;
  return value >= static_cast<float>(top) ? top : static_cast<int>(value);
}

float signed_extreme(const float* x) {  // the first value of largest magnitude
  float extreme = 0, magnitude = 0;
  for (int j = 0; j < kBlock; ++j) {
    if (magnitude < std::fabs(x[j])) {
      magnitude = std::fabs(x[j]);
      extreme = x[j];
    }
  }
  return extreme;
}

// Symmetric types of `levels` steps (16 or 32): the value of largest magnitude becomes the lowest level.
float symmetric_levels(const float* x, int levels, uint8_t* q) {
  const float scale = signed_extreme(x) / static_cast<float>(-levels / 2);
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  const float offset = static_cast<float>(levels / 2) + 0.5f;
  for (int j = 0; j < kBlock; ++j) q[j] = static_cast<uint8_t>(level(x[j] * inverse + offset, levels - 1));
  return scale;
}

float affine_levels(const float* x, int levels, uint8_t* q, float* low) {
  float min = x[0], max = x[0];
  for (int j = 1; j < kBlock; ++j) {
    min = std::min(min, x[j]);
    max = std::max(max, x[j]);
  }
  const float scale = (max - min) / static_cast<float>(levels - 1);
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  for (int j = 0; j < kBlock; ++j) q[j] = static_cast<uint8_t>(level((x[j] - min) * inverse + 0.5f, levels - 1));
  *low = min;
  return scale;
}

void pack_nibbles(const uint8_t* q, uint8_t* quants) {
  for (int j = 0; j < 16; ++j) quants[j] = static_cast<uint8_t>((q[j] & 0xf) | ((q[j + 16] & 0xf) << 4));
}

void pack_high_bits(const uint8_t* q, uint8_t* high) {
  uint32_t bits = 0;
  for (int j = 0; j < kBlock; ++j) bits |= static_cast<uint32_t>(q[j] >> 4) << j;
  std::memcpy(high, &bits, sizeof bits);
}

void encode(const float* x, BlockQ4_0& b) {
  uint8_t q[kBlock];
  b.scale = f32_to_f16(symmetric_levels(x, 16, q));
  pack_nibbles(q, b.quants);
}

void encode(const float* x, BlockQ4_1& b) {
  uint8_t q[kBlock];
  float min;
  b.scale = f32_to_f16(affine_levels(x, 16, q, &min));
  b.min = f32_to_f16(min);
  pack_nibbles(q, b.quants);
}

void encode(const float* x, BlockQ5_0& b) {
  uint8_t q[kBlock];
  b.scale = f32_to_f16(symmetric_levels(x, 32, q));
  pack_nibbles(q, b.quants);
  pack_high_bits(q, b.high);
}

void encode(const float* x, BlockQ5_1& b) {
  uint8_t q[kBlock];
  float min;
  b.scale = f32_to_f16(affine_levels(x, 32, q, &min));
  b.min = f32_to_f16(min);
  pack_nibbles(q, b.quants);
  pack_high_bits(q, b.high);
}

void encode(const float* x, BlockQ8_0& b) {
  const float scale = std::fabs(signed_extreme(x)) / 127.0f;
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  for (int j = 0; j < kBlock; ++j) {
    const float rounded = std::round(x[j] * inverse);  // half away from zero
    b.quants[j] = static_cast<int8_t>(rounded > -128.0f ? (rounded < 127.0f ? static_cast<int>(rounded) : 127) : -128);
  }
  b.scale = f32_to_f16(scale);
}

template <class Block, int kElements>
void encode_row(const float* values, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n / kElements; ++i) {
    Block block;
    encode(values + i * kElements, block);
    std::memcpy(out + static_cast<size_t>(i) * sizeof(Block), &block, sizeof(Block));
  }
}

}  // namespace

void dequantize_row(DType type, const std::byte* row, int64_t n, float* out) {
  assert(n % dtype_info(type).block == 0);
  switch (type) {
    case DType::kF32:
      std::memcpy(out, row, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) out[i] = half_without_branches(load_u16(row + 2 * i));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_f32(load_u16(row + 2 * i));
      return;
    case DType::kQ8_0:
      return decode_row<BlockQ8_0, kBlock>(row, n, out);
    case DType::kQ4_0:
      return decode_row<BlockQ4_0, kBlock>(row, n, out);
    case DType::kQ4_1:
      return decode_row<BlockQ4_1, kBlock>(row, n, out);
    case DType::kQ5_0:
      return decode_row<BlockQ5_0, kBlock>(row, n, out);
    case DType::kQ5_1:
      return decode_row<BlockQ5_1, kBlock>(row, n, out);
    case DType::kQ4_K:
      return decode_row<BlockQ4_K, kSuperBlock>(row, n, out);
    case DType::kQ5_K:
      return decode_row<BlockQ5_K, kSuperBlock>(row, n, out);
    case DType::kQ6_K:
      return decode_row<BlockQ6_K, kSuperBlock>(row, n, out);
  }
}

Buffer<float> dequantize(const Tensor& tensor) {
  Buffer<float> out(static_cast<size_t>(tensor.elements()));
  const int64_t cols = tensor.cols();
  threads().parallel_for(tensor.rows(), [&](int64_t r, int) {
    dequantize_row(tensor.type, tensor.row(r), cols, out.data() + r * cols);
  });
  return out;
}

void quantize_row(DType type, const float* values, int64_t n, std::byte* out) {
  assert(n % dtype_info(type).block == 0);
  const auto store = [&](auto convert) {
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t bits = convert(values[i]);
      std::memcpy(out + 2 * i, &bits, sizeof bits);
    }
  };
  switch (type) {
    case DType::kF32:
      std::memcpy(out, values, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kF16:
      return store(f32_to_f16);
    case DType::kBF16:
      return store(f32_to_bf16);
    case DType::kQ8_0:
      return encode_row<BlockQ8_0, kBlock>(values, n, out);
    case DType::kQ4_0:
      return encode_row<BlockQ4_0, kBlock>(values, n, out);
    case DType::kQ4_1:
      return encode_row<BlockQ4_1, kBlock>(values, n, out);
    case DType::kQ5_0:
      return encode_row<BlockQ5_0, kBlock>(values, n, out);
    case DType::kQ5_1:
      return encode_row<BlockQ5_1, kBlock>(values, n, out);
    case DType::kQ4_K:
      return encode_row<BlockQ4_K, kSuperBlock>(values, n, out);
    case DType::kQ5_K:
      return encode_row<BlockQ5_K, kSuperBlock>(values, n, out);
    case DType::kQ6_K:
      return encode_row<BlockQ6_K, kSuperBlock>(values, n, out);
  }
}

}  // namespace thimble
