#pragma once

#include <string>
#include <vector>

#include "core/cpu.h"
#include "tensor/dtype.h"

namespace thimble {

// Which kernels cpu_level() brings for a weight of this type, in words: what multiplies, and how wide.
struct KernelChoice {
  DType type = DType::kF32;
  std::string packed;    // inference, MatmulPrecision::kFast
  std::string training;  // gemm.h, GemmPrecision::kBF16
};
std::vector<KernelChoice> kernel_choices();  // every type
std::string attention_choice();              // the same for all weights: keys and values have types of their own

// What a packed weight is multiplied in at cpu_level(), and so which of the machine's peaks bounds it.
enum class Arithmetic { kInt8, kBF16, kF32 };
Arithmetic packed_arithmetic(DType type, bool exact);  // exact: MatmulPrecision::kF32
const char* arithmetic_name(Arithmetic arithmetic);    // "int8", "bf16", "f32"

}  // namespace thimble
