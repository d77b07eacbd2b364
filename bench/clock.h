#pragma once

#include <ctime>

#include "core/thread_pool.h"

namespace thimble::bench {

// Seconds. With one thread its own processor time, which neighbours on a shared machine don't lengthen.
inline double now() {
  timespec time{};
  clock_gettime(threads().size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace thimble::bench
