#include "kernels/kernel_choice.h"

#include <fmt/core.h>

#include "kernels/gemm_kernels.h"

namespace thimble {
namespace {

// The instruction that does the work, as the kernels of each level use it.
std::string instruction(Arithmetic arithmetic, CpuLevel level) {
  switch (level) {
    case CpuLevel::kPlain:
      return "plain";
    case CpuLevel::kNeon:
      return arithmetic == Arithmetic::kInt8 ? "smull, 16 bytes" : "fmla, 16 bytes";
    case CpuLevel::kNeonDot:
      return arithmetic == Arithmetic::kInt8 ? "sdot, 16 bytes" : "fmla, 16 bytes";
    case CpuLevel::kNeonBf16:
      return arithmetic == Arithmetic::kInt8   ? "smmla, 16 bytes"
             : arithmetic == Arithmetic::kBF16 ? "bfdot, 16 bytes"
                                               : "fmla, 16 bytes";
    case CpuLevel::kAvx2:
      return arithmetic == Arithmetic::kInt8 ? "vpmaddubsw, 32 bytes" : "vfmadd, 32 bytes";
    case CpuLevel::kAvx512:
    case CpuLevel::kAvx512Bf16:
      return arithmetic == Arithmetic::kInt8   ? "vpdpbusd, 64 bytes"
             : arithmetic == Arithmetic::kBF16 ? "vdpbf16ps, 64 bytes"
                                               : "vfmadd, 64 bytes";
  }
  return {};
}

std::string described(Arithmetic arithmetic, CpuLevel level) {
  return fmt::format("{} ({})", arithmetic_name(arithmetic), instruction(arithmetic, level));
}

// Asks gemm.h itself, so that the table can't say anything else than what runs.
std::string training_choice() {
  std::string choice;
  gemm::with_kernels(GemmPrecision::kBF16, [&](const auto& kernels) {
    const bool bf16 = kernels.pair == 2;
    choice = described(bf16 ? Arithmetic::kBF16 : Arithmetic::kF32, cpu_level());
  });
  return choice;
}

}  // namespace

const char* arithmetic_name(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kInt8 ? "int8" : arithmetic == Arithmetic::kBF16 ? "bf16" : "f32";
}

Arithmetic packed_arithmetic(DType type, bool exact) {
  if (exact) return Arithmetic::kF32;
  if (is_quantized(type)) return Arithmetic::kInt8;
  return type == DType::kBF16 && has_bf16_products(cpu_level()) ? Arithmetic::kBF16 : Arithmetic::kF32;
}

std::vector<KernelChoice> kernel_choices() {
  std::vector<KernelChoice> choices;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    choices.push_back({type, described(packed_arithmetic(type, false), cpu_level()), training_choice()});
  }
  return choices;
}

std::string attention_choice() { return described(Arithmetic::kF32, cpu_level()); }

}  // namespace thimble
