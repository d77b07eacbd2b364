#include "kernels/weight_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <new>

namespace thimble {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRegion = size_t{64} << 20;

class Region {
 public:
  explicit Region(size_t bytes) : mapped_((bytes + kHugePage - 1) / kHugePage * kHugePage + kHugePage) {
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(base_);
    next_ = reinterpret_cast<std::byte*>((address + kHugePage - 1) / kHugePage * kHugePage);
    end_ = next_ + (mapped_ - kHugePage);
#ifdef MADV_HUGEPAGE
    madvise(next_, static_cast<size_t>(end_ - next_), MADV_HUGEPAGE);  // advice only
#endif
  }
  ~Region() { munmap(base_, mapped_); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  std::byte* take(size_t bytes) {  // null where it doesn't fit
    if (static_cast<size_t>(end_ - next_) < bytes) return nullptr;
    std::byte* taken = next_;
    next_ += bytes;
    return taken;
  }

 private:
  size_t mapped_;
  void* base_;
  std::byte* next_;
  std::byte* end_;
};

}  // namespace

std::shared_ptr<std::byte> allocate_weights(size_t bytes) {
  static std::mutex mutex;
  static std::weak_ptr<Region> current;  // weak: an unloaded model leaves nothing behind
  bytes = (bytes + 63) / 64 * 64;
  const std::scoped_lock lock(mutex);
  std::shared_ptr<Region> region = current.lock();
  std::byte* taken = region == nullptr ? nullptr : region->take(bytes);
  if (taken == nullptr) {
    region = std::make_shared<Region>(std::max(bytes, kRegion));
    taken = region->take(bytes);
    current = region;
  }
  return {region, taken};
}

}  // namespace thimble
