#include "core/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace thimble {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t rounded_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

ByteBuffer::ByteBuffer(size_t bytes, size_t small) : size_(bytes) {
  if (bytes == 0) return;
  // Small buffers stay on the heap: a whole page each would cost more than it gives.
  if (bytes < kHugePage) {
    const size_t rounded = rounded_up(bytes, 64);
    data_ = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, rounded);
    return;
  }
  // [ordinary pages][boundary: 2 MB pages to the end]. Whole 2 MB pages, or the last one would be an ordinary one.
  const size_t before = rounded_up(std::min(small, bytes), static_cast<size_t>(::sysconf(_SC_PAGESIZE)));
  const size_t behind = rounded_up(bytes - std::min(before, bytes), kHugePage);
  mapped_ = before + behind + kHugePage;
  mapping_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw std::bad_alloc();
  }
  const size_t boundary = rounded_up(reinterpret_cast<uintptr_t>(mapping_) + before, kHugePage);
  data_ = reinterpret_cast<std::byte*>(boundary - before);
#ifdef MADV_HUGEPAGE
  // Advice only: without it the buffer works, slower.
  if (before > 0) ::madvise(data_, before, MADV_NOHUGEPAGE);
  if (behind > 0) ::madvise(data_ + before, behind, MADV_HUGEPAGE);
#endif
}

ByteBuffer::~ByteBuffer() {
  if (borrowed_) return;
  if (mapping_ != nullptr)
    ::munmap(mapping_, mapped_);
  else
    std::free(data_);
}

}  // namespace thimble
