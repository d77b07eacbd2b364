#pragma once

#include <cstddef>

namespace thimble {

// Bytes that a program can still take without swapping (MemAvailable, or the container's limit where lower).
size_t available_memory();
// What this process has in memory now, mapped files included.
size_t resident_memory();
// The most that this process has had in memory so far.
size_t peak_memory();

}  // namespace thimble
