#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace thimble {

// A whole file mapped read-only. Throws Error where the file can't be opened or is not a regular file.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Gives the memory of these bytes back where they lie in a mapped file: they are read from the file again when they are
// next looked at. Does nothing for other memory. Any thread may call it.
void let_go_of_mapped(std::span<const std::byte> bytes);

}  // namespace thimble
