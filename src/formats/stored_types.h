#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "formats/model_config.h"
#include "tensor/tensor.h"

namespace thimble {

// The element types that a model is written in.
struct StoredTypes {
  DType matrices = DType::kF16;
  DType vectors = DType::kF32;  // norms and biases
  std::optional<DType> head;    // of the output head; not given: head_type(matrices)
};

// llama.cpp's rule: the head decides between all tokens at once, so types of fewer than six bits leave it at Q6_K.
DType head_type(DType matrices);

// `type`, or where rows of `cols` elements are not whole blocks of it the type that llama.cpp takes instead: Q5_0 for
// Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K, and F16 for those of 32.
DType fitting_type(DType type, int64_t cols);

// What a tensor is meant to be written as, and what its rows allow. `tied`: the embedding table is the head too.
struct StoredType {
  DType wanted, type;
  bool fell_back() const { return wanted != type; }
};
StoredType stored_type(std::string_view name, const Tensor& tensor, bool tied, const StoredTypes& types);

// Beyond this magnitude values don't fit: the type's own end, or that of the half floats that its blocks scale by.
float largest_value(DType type);

// llama.cpp's general.file_type: what most matrices are.
uint32_t gguf_file_type(DType type);

}  // namespace thimble
