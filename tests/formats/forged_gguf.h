#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace thimble::test {

// Writes GGUF bytes field by field, so that tests can lie in any of them.
class GgufBytes {
 public:
  explicit GgufBytes(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
    bytes_ = "GGUF";
    u32(version).u64(tensors).u64(entries);
  }
  GgufBytes& u8(uint8_t v) { return raw(v); }
  GgufBytes& u32(uint32_t v) { return raw(v); }
  GgufBytes& u64(uint64_t v) { return raw(v); }
  GgufBytes& f32(float v) { return raw(v); }
  GgufBytes& text(const std::string& s) {
    u64(s.size());
    bytes_ += s;
    return *this;
  }
  GgufBytes& entry(const std::string& key, uint32_t type) { return text(key).u32(type); }
  // dimensions as the file orders them: innermost first
  GgufBytes& tensor(const std::string& name, std::initializer_list<uint64_t> dimensions, uint32_t type,
                    uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t d : dimensions) u64(d);
    return u32(type).u64(offset);
  }
  GgufBytes& data(size_t bytes, uint64_t alignment = 32) {  // pads the header, then zeros
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + bytes);
    return *this;
  }
  std::span<const std::byte> bytes() const {
    return {reinterpret_cast<const std::byte*>(bytes_.data()), bytes_.size()};
  }
  const std::string& str() const { return bytes_; }

 private:
  template <class T>
  GgufBytes& raw(T v) {
    bytes_.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  std::string bytes_;
};

}  // namespace thimble::test
