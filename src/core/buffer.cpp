#include "core/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace thimble {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

ByteBuffer::ByteBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  // Small buffers stay on the heap: a whole page each would cost more than it gives.
  if (bytes < kHugePage) {
    const size_t rounded = (bytes + 63) / 64 * 64;
    data_ = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, rounded);
    return;
  }
  const size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  data_ = static_cast<std::byte*>(std::aligned_alloc(kHugePage, rounded));
  if (data_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  madvise(data_, rounded, MADV_HUGEPAGE);  // advice only: without it the buffer works, slower
#endif
  std::memset(data_, 0, rounded);
}

ByteBuffer::~ByteBuffer() { std::free(data_); }

}  // namespace thimble
