#include "formats/stored_types.h"

#include <bit>
#include <limits>

namespace thimble {

DType head_type(DType matrices) {
  switch (matrices) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return DType::kQ6_K;
    default:
      return matrices;
  }
}

DType fitting_type(DType type, int64_t cols) {
  if (cols % dtype_info(type).block == 0) return type;
  switch (type) {
    case DType::kQ4_K:
      return fitting_type(DType::kQ5_0, cols);
    case DType::kQ5_K:
      return fitting_type(DType::kQ5_1, cols);
    case DType::kQ6_K:
      return fitting_type(DType::kQ8_0, cols);
    default:
      return DType::kF16;
  }
}

StoredType stored_type(std::string_view name, const Tensor& tensor, bool tied, const StoredTypes& types) {
  if (tensor.shape.size() < 2) return {types.vectors, types.vectors};
  const bool head = name == (tied ? "model.embed_tokens.weight" : "lm_head.weight");
  const DType wanted = head ? types.head.value_or(head_type(types.matrices)) : types.matrices;
  return {wanted, fitting_type(wanted, tensor.cols())};
}

float largest_value(DType type) {
  if (type == DType::kF32) return std::numeric_limits<float>::max();
  if (type == DType::kBF16) return std::bit_cast<float>(0x7f7f7fffu);  // the next one rounds to infinity
  return 65504.0f;
}

uint32_t gguf_file_type(DType type) {  // llama_ftype in llama.h; of the K types those that mix none in
  switch (type) {
    case DType::kF32: return 0;
    case DType::kF16: return 1;
    case DType::kBF16: return 32;
    case DType::kQ4_0: return 2;
    case DType::kQ4_1: return 3;
    case DType::kQ5_0: return 8;
    case DType::kQ5_1: return 9;
    case DType::kQ8_0: return 7;
    case DType::kQ4_K: return 14;
    case DType::kQ5_K: return 16;
    case DType::kQ6_K: return 18;
  }
  return 0;
}

}  // namespace thimble
