#include "kernels/weight_memory.h"

#include <algorithm>
#include <mutex>

#include "core/buffer.h"

namespace thimble {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRegion = size_t{64} << 20;

class Region {
 public:
  explicit Region(size_t bytes) : memory_((bytes + kHugePage - 1) / kHugePage * kHugePage) {}

  std::byte* take(size_t bytes) {  // null where it doesn't fit
    if (memory_.size() - taken_ < bytes) return nullptr;
    std::byte* taken = memory_.data() + taken_;
    taken_ += bytes;
    return taken;
  }

 private:
  ByteBuffer memory_;
  size_t taken_ = 0;
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
