#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace thimble {

// Element types of stored tensors. The quantised ones pack `block` consecutive elements of a row into
// `block_bytes` bytes; their layouts are in tensor/blocks.h.
enum class DType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K };
inline constexpr int kDTypeCount = 11;

struct DTypeInfo {
  std::string_view name;  // as GGUF tools write it: "Q4_1"
  int block;              // elements a block
  int block_bytes;        // bytes a block
  uint32_t ggml_type;     // id in GGUF files
};

const DTypeInfo& dtype_info(DType type);
std::optional<DType> dtype_from_ggml(uint32_t ggml_type);
std::optional<DType> dtype_from_name(std::string_view name);  // case-insensitive
inline bool is_quantized(DType type) { return type >= DType::kQ8_0; }

// Bytes of `elements` consecutive elements; elements must be a multiple of the block.
inline size_t dtype_bytes(DType type, int64_t elements) {
  const DTypeInfo& info = dtype_info(type);
  return static_cast<size_t>(elements / info.block) * static_cast<size_t>(info.block_bytes);
}

}  // namespace thimble
