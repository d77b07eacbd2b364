#include "kernels/scratch.h"

#include <algorithm>
#include <vector>

namespace thimble::detail {
namespace {
thread_local std::vector<ByteBuffer> kept;  // by size, smallest first
}

ByteBuffer take_scratch(size_t bytes) {
  bytes = std::max<size_t>(bytes, 64);
  const auto fits = std::find_if(kept.begin(), kept.end(), [&](const ByteBuffer& b) { return b.size() >= bytes; });
  if (fits != kept.end()) {
    ByteBuffer taken = std::move(*fits);
    kept.erase(fits);
    return taken;
  }
  if (!kept.empty()) kept.pop_back();  // the new one takes its place, so that outgrown buffers don't pile up
  return ByteBuffer(bytes);
}

void keep_scratch(ByteBuffer buffer) {
  if (buffer.data() == nullptr) return;  // moved from
  const auto place =
      std::find_if(kept.begin(), kept.end(), [&](const ByteBuffer& b) { return b.size() >= buffer.size(); });
  kept.insert(place, std::move(buffer));
}

}  // namespace thimble::detail
