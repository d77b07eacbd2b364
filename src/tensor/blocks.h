#pragma once

#include <cstdint>

namespace thimble {

// The stored blocks of the quantised types, byte for byte as GGUF files hold them (ggml-common.h of ggml is their
// specification). f16 fields are bit patterns, see tensor/half.h. Little-endian.

inline constexpr int kBlock = 32;        // elements in a block of the simple types
inline constexpr int kSuperBlock = 256;  // elements in a block of the K types

// Nibbles: element j of a block is the low half of quants[j], element j + 16 the high half.
struct BlockQ4_0 {  // value = scale * (q - 8)
  uint16_t scale;
  uint8_t quants[kBlock / 2];
};
struct BlockQ4_1 {  // value = scale * q + min
  uint16_t scale;
  uint16_t min;
  uint8_t quants[kBlock / 2];
};
struct BlockQ5_0 {  // value = scale * (q - 16); bit j of `high` (little-endian) is bit 4 of element j
  uint16_t scale;
  uint8_t high[4];
  uint8_t quants[kBlock / 2];
};
struct BlockQ5_1 {  // value = scale * q + min
  uint16_t scale;
  uint16_t min;
  uint8_t high[4];
  uint8_t quants[kBlock / 2];
};
struct BlockQ8_0 {  // value = scale * q
  uint16_t scale;
  int8_t quants[kBlock];
};

// K types: eight sub-blocks of 32 with 6-bit scales and mins packed into 12 bytes (see scale_min_k4).
// Bytes 32 g .. 32 g + 31 of quants hold sub-block 2 g in their low and sub-block 2 g + 1 in their high halves.
struct BlockQ4_K {  // value = scale * sub_scale * q - min * sub_min
  uint16_t scale;
  uint16_t min;
  uint8_t scales[12];
  uint8_t quants[kSuperBlock / 2];
};
struct BlockQ5_K {  // the same; bit s of high[l] is bit 4 of element l of sub-block s
  uint16_t scale;
  uint16_t min;
  uint8_t scales[12];
  uint8_t high[kSuperBlock / 8];
  uint8_t quants[kSuperBlock / 2];
};
// Two halves of 128 elements: elements l, l + 32, l + 64, l + 96 of a half take their low four bits from
// low[l], low[l + 32] (low halves), low[l], low[l + 32] (high halves) and their high two from high[l].
struct BlockQ6_K {  // value = scale * scales[element / 16] * (q - 32)
  uint8_t low[kSuperBlock / 2];
  uint8_t high[kSuperBlock / 4];
  int8_t scales[kSuperBlock / 16];
  uint16_t scale;
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// Scale and min of sub-block s in [0, 8) of a Q4_K or Q5_K block.
struct ScaleMin {
  uint8_t scale;
  uint8_t min;
};
inline ScaleMin scale_min_k4(const uint8_t* packed, int s) {
  if (s < 4) return {static_cast<uint8_t>(packed[s] & 63), static_cast<uint8_t>(packed[s + 4] & 63)};
  return {static_cast<uint8_t>((packed[s + 4] & 0xf) | ((packed[s - 4] >> 6) << 4)),
          static_cast<uint8_t>((packed[s + 4] >> 4) | ((packed[s] >> 6) << 4))};
}

}  // namespace thimble
