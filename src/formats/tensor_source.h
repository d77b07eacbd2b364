#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace thimble {

// Takes the next bytes of a tensor that is being written.
using WriteBytes = std::function<void(const void* data, size_t bytes)>;

// A tensor to be written: what the file's header says, and a function that hands over exactly
// dtype_bytes(type, elements) bytes in row order when its turn comes, so that a model never stands in memory twice.
struct TensorSource {
  std::string name;
  DType type = DType::kF32;
  std::vector<int64_t> shape;  // outermost first
  std::function<void(const WriteBytes& write)> produce;
};

inline TensorSource stored_source(std::string name, Tensor tensor) {  // the bytes as they are
  return {std::move(name), tensor.type, tensor.shape,
          [tensor](const WriteBytes& write) { write(tensor.data, tensor.bytes()); }};
}

}  // namespace thimble
