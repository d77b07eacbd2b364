#include "core/machine.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

namespace thimble {
namespace {

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return {};
}

// What a core sees of the cache of that level: sysconf would count all of a processor's third-level caches together.
size_t cache_bytes(int level) {
  const std::filesystem::path folder = "/sys/devices/system/cpu/cpu0/cache";
  for (int i = 0; i < 8; ++i) {
    const std::filesystem::path cache = folder / ("index" + std::to_string(i));
    int found = 0;
    size_t kib = 0;  // "1024K"
    if (std::ifstream(cache / "level") >> found && found == level && std::ifstream(cache / "size") >> kib)
      return kib * 1024;
  }
  return 0;
}

// The file lists the choices with the present one in brackets: "always [madvise] never".
std::string huge_page_setting() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  std::getline(in, line);
  const size_t open = line.find('['), close = line.find(']');
  return open == std::string::npos || close == std::string::npos ? "" : line.substr(open + 1, close - open - 1);
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

Machine describe_machine() {
  return {processor_name(), usable_cores(), cache_bytes(2), cache_bytes(3), huge_page_setting()};
}

}  // namespace thimble
