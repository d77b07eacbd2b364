#include "core/cpu.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <utility>

#include "core/error.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace thimble {
namespace {

constexpr std::array<std::string_view, 7> kNames = {"plain", "neon",   "neondot",   "neonbf16",
                                                    "avx2",  "avx512", "avx512bf16"};

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
  return CpuLevel::kPlain;
#elif defined(__aarch64__)
  // Linux's numbers of the features (asm/hwcap.h), which older headers lack.
  constexpr unsigned long kDotProducts = 1ul << 20, kByteMatrices = 1ul << 13, kBf16 = 1ul << 14;
  if ((getauxval(AT_HWCAP) & kDotProducts) == 0) return CpuLevel::kNeon;
  const unsigned long more = getauxval(AT_HWCAP2);
  return (more & kByteMatrices) != 0 && (more & kBf16) != 0 ? CpuLevel::kNeonBf16 : CpuLevel::kNeonDot;
#else
  return CpuLevel::kPlain;
#endif
}

// Whether processors of this kind may have the level.
constexpr bool is_of_this_kind(CpuLevel level) {
  if (level == CpuLevel::kPlain) return true;
#if defined(__x86_64__)
  return level >= CpuLevel::kAvx2;
#elif defined(__aarch64__)
  return level < CpuLevel::kAvx2;
#else
  return false;
#endif
}

std::string names_of_this_kind() {
  std::string names;
  for (size_t i = 0; i < kNames.size(); ++i)
    if (is_of_this_kind(static_cast<CpuLevel>(i))) names += fmt::format("{}{}", names.empty() ? "" : ", ", kNames[i]);
  return names;
}

CpuLevel from_environment() {
  const char* asked = std::getenv("THIMBLE_CPU");
  if (asked == nullptr || *asked == '\0') return cpu_detected();
  return cpu_level_named(asked, "THIMBLE_CPU");
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
  forced = static_cast<int>(cpu_level_named(cpu_level_name(level), "instruction set"));
}

std::string_view cpu_level_name(CpuLevel level) { return kNames[static_cast<size_t>(level)]; }

CpuLevel cpu_level_named(std::string_view name, std::string_view asked_by, CpuLevel most) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  const auto level = static_cast<CpuLevel>(found - kNames.begin());
  if (found == kNames.end() || !is_of_this_kind(level))
    throw Error(fmt::format("{} {}: there is no such level; choose of {}", asked_by, name, names_of_this_kind()));
  if (level > most)
    throw Error(fmt::format("{} {}: this machine has no more than {}; choose that or a lower one (`thimble info --cpu` "
                            "shows what it has)", asked_by, name, cpu_level_name(most)));
  return level;
}

std::vector<CpuLevel> cpu_levels() {
  std::vector<CpuLevel> levels;
  for (size_t i = 0; i < kNames.size(); ++i)
    if (const auto level = static_cast<CpuLevel>(i); is_of_this_kind(level) && level <= cpu_detected())
      levels.push_back(level);
  return levels;
}

std::vector<std::string_view> cpu_features() {
  std::vector<std::string_view> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const std::pair<bool, std::string_view> known[] = {
      {__builtin_cpu_supports("avx") != 0, "avx"},
      {__builtin_cpu_supports("avx2") != 0, "avx2"},
      {__builtin_cpu_supports("fma") != 0, "fma"},
      {__builtin_cpu_supports("f16c") != 0, "f16c"},
      {__builtin_cpu_supports("avx512f") != 0, "avx512f"},
      {__builtin_cpu_supports("avx512bw") != 0, "avx512bw"},
      {__builtin_cpu_supports("avx512dq") != 0, "avx512dq"},
      {__builtin_cpu_supports("avx512vl") != 0, "avx512vl"},
      {__builtin_cpu_supports("avx512vbmi") != 0, "avx512vbmi"},
      {__builtin_cpu_supports("avx512vnni") != 0, "avx512_vnni"},
      {__builtin_cpu_supports("avx512bf16") != 0, "avx512_bf16"},
  };
  for (const auto& [present, name] : known)
    if (present) found.push_back(name);
#elif defined(__aarch64__)
  found.push_back("asimd");
  if (cpu_detected() >= CpuLevel::kNeonDot) found.push_back("asimddp");
  if (cpu_detected() >= CpuLevel::kNeonBf16) found.insert(found.end(), {"i8mm", "bf16"});
#endif
  return found;
}

std::string_view cpu_shortfall(CpuLevel detected) {
  switch (detected) {
    case CpuLevel::kPlain:
#if defined(__x86_64__)
      return "this processor has no AVX2: everything works on plain code, many times slower";
#else
      return "this build has no hand-written kernels for this processor: everything works, many times slower";
#endif
    case CpuLevel::kNeon:
      return "this processor has no SDOT: products of 8-bit numbers run on older instructions, which are slower";
    case CpuLevel::kNeonDot:
      return "this processor has no I8MM and BF16: products run on SDOT and f32, which are slower";
    case CpuLevel::kNeonBf16:
      break;
    case CpuLevel::kAvx2:
      return "this processor has no AVX-512 VNNI: products run on AVX2 kernels, which are slower";
    case CpuLevel::kAvx512:
      return "this processor has no AVX-512 BF16: training and BF16 models run on f32 products, which are slower";
    case CpuLevel::kAvx512Bf16:
      break;
  }
  return {};
}

}  // namespace thimble
