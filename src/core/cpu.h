#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace thimble {

// Instruction sets that kernels choose between at run time, from plain to best. ARM's stand before x86's, so that
// "kAvx2 or more" is never true of an ARM machine.
enum class CpuLevel { kPlain, kNeon, kNeonDot, kNeonBf16, kAvx2, kAvx512, kAvx512Bf16 };

// kNeon: what every 64-bit ARM has. kNeonDot: and dot products of bytes (SDOT). kNeonBf16: and I8MM and BF16.
// kAvx2: AVX2 + FMA + F16C. kAvx512: F, BW, DQ, VL and VNNI. kAvx512Bf16: the same and BF16.
CpuLevel cpu_detected();
// What kernels use: the detected level, or a lower one that was forced (THIMBLE_CPU=plain|avx2|avx512|avx512bf16, on
// ARM plain|neon|neondot|neonbf16, or force_cpu). Asking for what the machine doesn't have throws Error.
CpuLevel cpu_level();
void force_cpu(CpuLevel level);
std::string_view cpu_level_name(CpuLevel level);
// Whether a level has dot products of bfloat16.
constexpr bool has_bf16_products(CpuLevel level) {
  return level == CpuLevel::kNeonBf16 || level == CpuLevel::kAvx512Bf16;
}
std::vector<CpuLevel> cpu_levels();  // all that this machine can run
// The level of that name, which `asked_by` (an option, a variable) gave. Throws Error where there is no such level, and
// where `most`, what the machine has, is lower.
CpuLevel cpu_level_named(std::string_view name, std::string_view asked_by, CpuLevel most = cpu_detected());

// The processor's instruction sets that kernels use or could use, as Linux spells them: "avx2", "avx512_vnni".
std::vector<std::string_view> cpu_features();
// What a machine of that level does without, in one sentence; empty where it has every fast path.
std::string_view cpu_shortfall(CpuLevel detected);

}  // namespace thimble
