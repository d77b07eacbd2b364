#include "core/cpu.h"

#include <fmt/core.h>

#include <array>
#include <atomic>
#include <cstdlib>

#include "core/error.h"

namespace thimble {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"plain", "avx2", "avx512", "avx512bf16"};

CpuLevel detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return CpuLevel::kAvx512Bf16;
  if (avx512) return CpuLevel::kAvx512;
  if (avx2) return CpuLevel::kAvx2;
#endif
  return CpuLevel::kPlain;
}

CpuLevel from_environment() {
  const char* asked = std::getenv("THIMBLE_CPU");
  if (asked == nullptr || *asked == '\0') return cpu_detected();
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] != asked) continue;
    if (static_cast<CpuLevel>(i) > cpu_detected())
      throw Error(fmt::format("THIMBLE_CPU={}: this machine has no more than {}; choose that or a lower one", asked,
                              cpu_level_name(cpu_detected())));
    return static_cast<CpuLevel>(i);
  }
  throw Error(fmt::format("THIMBLE_CPU={}: unknown; use plain, avx2, avx512 or avx512bf16", asked));
}

std::atomic<int> forced{-1};
}  // namespace

CpuLevel cpu_detected() {
  static const CpuLevel level = detect();
  return level;
}

CpuLevel cpu_level() {
  if (const int level = forced.load(std::memory_order_relaxed); level >= 0) return static_cast<CpuLevel>(level);
  static const CpuLevel level = from_environment();
  return level;
}

void force_cpu(CpuLevel level) {
  if (level > cpu_detected())
    throw Error(fmt::format("instruction set {}: this machine has no more than {}", cpu_level_name(level),
                            cpu_level_name(cpu_detected())));
  forced = static_cast<int>(level);
}

std::string_view cpu_level_name(CpuLevel level) { return kNames[static_cast<size_t>(level)]; }

std::vector<CpuLevel> cpu_levels() {
  std::vector<CpuLevel> levels;
  for (int i = 0; i <= static_cast<int>(cpu_detected()); ++i) levels.push_back(static_cast<CpuLevel>(i));
  return levels;
}

}  // namespace thimble
