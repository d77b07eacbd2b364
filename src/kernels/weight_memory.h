#pragma once

#include <cstddef>
#include <memory>

namespace thimble {

// Zeroed memory for packed weights, aligned to 64 bytes: neighbours on shared 2 MB pages, because a small model's
// matrices are each smaller than such a page, and reading from 4 KiB pages is much slower. Any thread may call it;
// memory goes back to the system when the last slice of a region of 64 MB is gone. Untouched memory costs nothing.
std::shared_ptr<std::byte> allocate_weights(size_t bytes);

}  // namespace thimble
