#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace thimble {

// Instruction sets that kernels choose between at run time, from plain to best.
enum class CpuLevel { kPlain, kAvx2, kAvx512, kAvx512Bf16 };

// kAvx2: AVX2 + FMA + F16C. kAvx512: F, BW, DQ, VL and VNNI. kAvx512Bf16: the same and BF16.
CpuLevel cpu_detected();
// What kernels use: the detected level, or a lower one that was forced (THIMBLE_CPU=plain|avx2|avx512|avx512bf16
// or force_cpu). Asking for more than the machine has throws Error.
CpuLevel cpu_level();
void force_cpu(CpuLevel level);
std::string_view cpu_level_name(CpuLevel level);
std::vector<CpuLevel> cpu_levels();  // all that this machine can run

}  // namespace thimble
