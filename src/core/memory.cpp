#include "core/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace thimble {
namespace {

size_t read_number(const char* path) {  // a cgroup file: a number, or "max"; the largest number where unreadable
  std::ifstream in(path);
  size_t value = 0;
  return in >> value ? value : std::numeric_limits<size_t>::max();
}

}  // namespace

size_t available_memory() {
  size_t available = static_cast<size_t>(::sysconf(_SC_AVPHYS_PAGES)) * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::ifstream in("/proc/meminfo");
  for (std::string key; in >> key;) {
    if (key == "MemAvailable:") {
      size_t kib = 0;
      if (in >> kib) available = kib * 1024;
      break;
    }
    in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  const size_t limit = read_number("/sys/fs/cgroup/memory.max");
  const size_t current = read_number("/sys/fs/cgroup/memory.current");
  if (limit != std::numeric_limits<size_t>::max() && current < limit) available = std::min(available, limit - current);
  return available;
}

size_t resident_memory() {
  std::ifstream in("/proc/self/statm");
  size_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

size_t peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace thimble
