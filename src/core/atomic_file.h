#pragma once

#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace thimble {

// Writes beside the target and renames at commit(), so that a reader sees the old file or the whole new one and
// a full disk or a crash leaves nothing half-written. Without commit() the new file is removed. Throws Error
// with the path and the system's reason on any failed write.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  uint64_t position() const { return position_; }
  void commit();  // flush, sync to disk, rename, sync the folder: after it a power cut can't bring the old file back

 private:
  [[noreturn]] void fail(const char* what);

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  std::FILE* file_ = nullptr;
  uint64_t position_ = 0;
};

void write_file(const std::filesystem::path& target, std::string_view text);  // whole file, atomically
// What a file system knows of a folder's names goes to disk; nothing where it can't be asked for.
void sync_folder(const std::filesystem::path& folder);

std::string read_file(const std::filesystem::path& path);                     // whole file; throws Error

}  // namespace thimble
