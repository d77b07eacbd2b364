#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/tensor_source.h"
#include "tensor/tensor.h"

namespace thimble {

// GGUF, versions 2 and 3, little-endian (ggml/docs/gguf.md). Value types of metadata in the order of their ids.
enum class GgufType : uint32_t {
  kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64
};

struct GgufArray;
struct GgufArray {
  std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
               std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
               std::vector<std::string>, std::vector<GgufArray>, std::vector<uint64_t>, std::vector<int64_t>,
               std::vector<double>>
      items;  // alternatives in GgufType's order

  size_t size() const {
    return std::visit([](const auto& list) { return list.size(); }, items);
  }
};
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string,
                               GgufArray, uint64_t, int64_t, double>;  // alternatives in GgufType's order

struct GgufEntry {
  std::string key;
  GgufValue value;
};

struct GgufTensor {
  std::string name;
  DType type = DType::kF32;
  std::vector<int64_t> shape;         // outermost first: the file's dimensions reversed
  const std::byte* data = nullptr;    // into the bytes that were parsed
};

struct GgufFile {
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<GgufEntry> metadata;  // in the file's order
  std::vector<GgufTensor> tensors;

  const GgufValue* find(std::string_view key) const;  // nullptr where absent
  // The value under a key, of whatever integer or float type; nullopt where absent. Throw Error naming the key
  // where it holds something else or does not fit.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> string(std::string_view key) const;
  const std::vector<std::string>* strings(std::string_view key) const;  // nullptr where absent
  std::vector<std::string> take_strings(std::string_view key);  // moved out of the file; empty where absent
  std::string place;  // the file's name, for messages
};

// Reads headers; tensors point into `bytes`. Every length, offset and count is checked against the bytes that are
// there; duplicate names, tensors that overlap or leave the file, and unknown types throw Error.
GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& place);

// Writes a version 3 file through AtomicFile. `alignment` is a power of two of at least 8 and is added to the
// metadata where it is not 32.
void write_gguf(const std::filesystem::path& path, std::span<const GgufEntry> metadata,
                std::span<const TensorSource> tensors, uint64_t alignment = 32);

}  // namespace thimble
