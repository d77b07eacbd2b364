#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace thimble {

// Element types of stored keys and values. kQ8: whole numbers from -127 to 127, times a scale that a token's head has.
enum class KvType : uint8_t { kF32, kF16, kBF16, kQ8 };
inline constexpr std::array<std::string_view, 4> kKvTypeNames = {"f32", "f16", "bf16", "q8"};

inline std::string_view kv_type_name(KvType type) { return kKvTypeNames[static_cast<size_t>(type)]; }
inline std::optional<KvType> kv_type_from_name(std::string_view name) {
  for (size_t i = 0; i < kKvTypeNames.size(); ++i)
    if (kKvTypeNames[i] == name) return static_cast<KvType>(i);
  return std::nullopt;
}

inline constexpr int kKvSlots = 64;  // slots a block

// How a layer's keys are stored, and in a storage of their own its values: in blocks of 64 slots, so that what one head
// reads of a block are consecutive bytes.
//   keys    [blocks][kv_heads]: of kQ8 float scale [64]; then elements [padded][64]
//   values  [blocks][kv_heads]: of kQ8 float scale [64]; then elements [64][padded]
// Keys lie transposed because attention multiplies an element of a query with that element of many keys at once.
struct KvLayout {
  KvType type = KvType::kF16;
  int kv_heads = 0;
  int head_dim = 0;

  // Keys of 8 bits are stored turned, and meet queries that are: kernels/rotate_heads.h.
  bool rotates_keys() const { return type == KvType::kQ8; }
  int padded() const { return (head_dim + 15) / 16 * 16; }  // whole vectors
  int element_bytes() const { return type == KvType::kF32 ? 4 : type == KvType::kQ8 ? 1 : 2; }
  int64_t scale_bytes() const { return type == KvType::kQ8 ? kKvSlots * int64_t{sizeof(float)} : 0; }
  int64_t head_bytes() const { return scale_bytes() + int64_t{kKvSlots} * padded() * element_bytes(); }
  int64_t block_bytes() const { return kv_heads * head_bytes(); }
  size_t bytes(int64_t slots) const {  // of a storage
    return static_cast<size_t>((slots + kKvSlots - 1) / kKvSlots * block_bytes());
  }

  // Where in a storage a head's part of the slot's block begins: its scales.
  int64_t head_at(int32_t slot, int kv_head) const { return slot / kKvSlots * block_bytes() + kv_head * head_bytes(); }
  int64_t scale_at(int32_t slot, int kv_head) const {
    return head_at(slot, kv_head) + slot % kKvSlots * int64_t{sizeof(float)};
  }
  // A slot's first element; the following ones are element_bytes() apart in values, kKvSlots times that in keys.
  int64_t key_at(int32_t slot, int kv_head) const {
    return head_at(slot, kv_head) + scale_bytes() + slot % kKvSlots * element_bytes();
  }
  int64_t value_at(int32_t slot, int kv_head) const {
    return head_at(slot, kv_head) + scale_bytes() + int64_t{slot % kKvSlots} * padded() * element_bytes();
  }
};

}  // namespace thimble
