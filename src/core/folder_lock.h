#pragma once

#include <filesystem>

namespace thimble {

// One process a folder: holds folder/lock, with the process's number in it, until it is destroyed or its process ends.
// The lock is the system's (flock), so one that a killed process left behind is free again; the file alone means
// nothing. Throws Error, naming the process that holds it, where another one does.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept : path_(std::move(other.path_)), file_(other.file_) { other.file_ = -1; }
  FolderLock& operator=(FolderLock&&) = delete;

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace thimble
