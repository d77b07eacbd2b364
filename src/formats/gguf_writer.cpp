#include <fmt/core.h>

#include <bit>
#include <cassert>
#include <cstring>
#include <type_traits>
#include <unordered_set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/gguf.h"

namespace thimble {
namespace {

constexpr uint64_t padded(uint64_t size, uint64_t alignment) { return (size + alignment - 1) / alignment * alignment; }

// The header is built in memory (vocabularies are a few megabytes); tensors stream.
class Header {
 public:
  template <class T>
  void number(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
  }
  void string(const std::string& text) {
    number<uint64_t>(text.size());
    bytes_ += text;
  }
  void array(const GgufArray& array) {
    number(static_cast<uint32_t>(array.items.index()));
    number<uint64_t>(array.size());
    std::visit([&](const auto& list) { for (const auto& item : list) this->item(item); }, array.items);
  }
  void value(const GgufValue& value) {
    number(static_cast<uint32_t>(value.index()));
    std::visit([&](const auto& v) { item(v); }, value);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class T>
  void item(const T& v) {
    if constexpr (std::is_same_v<T, GgufArray>) {
      array(v);
    } else if constexpr (std::is_same_v<T, std::string>) {
      string(v);
    } else if constexpr (std::is_same_v<T, bool>) {
      number<uint8_t>(v ? 1 : 0);
    } else {
      number(v);
    }
  }

  std::string bytes_;
};

}  // namespace

void write_gguf(const std::filesystem::path& path, std::span<const GgufEntry> metadata,
                std::span<const TensorSource> tensors, uint64_t alignment) {
  assert(alignment >= 8 && std::has_single_bit(alignment));
  std::vector<const GgufEntry*> entries;
  for (const GgufEntry& entry : metadata)
    if (entry.key != "general.alignment") entries.push_back(&entry);
  const GgufEntry own_alignment{"general.alignment", static_cast<uint32_t>(alignment)};
  if (alignment != 32) entries.push_back(&own_alignment);

  Header header;
  header.number<uint32_t>(0x46554747);  // "GGUF"
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(entries.size());
  for (const GgufEntry* entry : entries) {
    header.string(entry->key);
    header.value(entry->value);
  }
  std::unordered_set<std::string> names;
  uint64_t offset = 0;
  std::vector<uint64_t> sizes;
  for (const TensorSource& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      throw Error(fmt::format("{}: tensor '{}' would be written twice; give every tensor its own name", path.string(),
                              tensor.name));
    header.string(tensor.name);
    header.number(static_cast<uint32_t>(tensor.shape.size()));
    int64_t elements = 1;
    for (auto d = tensor.shape.rbegin(); d != tensor.shape.rend(); ++d) {
      header.number(static_cast<uint64_t>(*d));
      elements *= *d;
    }
    header.number(dtype_info(tensor.type).ggml_type);
    header.number(offset);
    sizes.push_back(dtype_bytes(tensor.type, elements));
    offset += padded(sizes.back(), alignment);
  }

  AtomicFile out(path);
  const std::string zeros(alignment, '\0');
  const auto pad = [&] { out.write(zeros.data(), padded(out.position(), alignment) - out.position()); };
  out.write(header.bytes());
  pad();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t start = out.position();
    tensors[i].produce([&](const void* data, size_t bytes) { out.write(data, bytes); });
    assert(out.position() - start == sizes[i]);
    (void)start;
    pad();
  }
  out.commit();
}

}  // namespace thimble
