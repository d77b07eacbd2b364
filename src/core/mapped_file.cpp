#include "core/mapped_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "core/error.h"

namespace thimble {
namespace {

// What is mapped now. Letting go of memory that is no file's would lose what it holds.
class Mappings {
 public:
  void add(std::span<const std::byte> bytes) {
    const std::scoped_lock lock(mutex_);
    all_.push_back(bytes);
  }
  void remove(const std::byte* data) {
    const std::scoped_lock lock(mutex_);
    std::erase_if(all_, [&](const auto& bytes) { return bytes.data() == data; });
  }
  void let_go(std::span<const std::byte> bytes) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const auto first = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
    const auto last = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
    if (first >= last) return;
    const std::scoped_lock lock(mutex_);  // nobody unmaps meanwhile
    for (const auto& file : all_)
      if (bytes.data() >= file.data() && bytes.data() + bytes.size() <= file.data() + file.size())
        ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }

 private:
  std::mutex mutex_;
  std::vector<std::span<const std::byte>> all_;
};

Mappings& mappings() {
  static auto& all = *new Mappings;  // never destroyed: files may be unmapped when statics are
  return all;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error(fmt::format("{}: can't be opened ({}); check the path", path.string(), std::strerror(errno)));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error(fmt::format("{}: is not a regular file; give the path of a file", path.string()));
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int reason = errno;
    ::close(fd);
    if (mapped == MAP_FAILED)
      throw Error(fmt::format("{}: can't be mapped into memory ({})", path.string(), std::strerror(reason)));
    data_ = static_cast<const std::byte*>(mapped);
    mappings().add(this->bytes());
  } else {
    ::close(fd);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  mappings().remove(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void let_go_of_mapped(std::span<const std::byte> bytes) { mappings().let_go(bytes); }

}  // namespace thimble
