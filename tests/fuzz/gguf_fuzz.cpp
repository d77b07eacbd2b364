#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/error.h"
#include "formats/gguf.h"
#include "formats/gguf_model.h"
#include "tensor/quantize.h"

namespace {

// Reads the ends of a tensor: whatever the parser let through must lie inside the file.
void touch(const thimble::Tensor& tensor) {
  if (tensor.cols() > 4096) return;
  std::vector<float> row(static_cast<size_t>(tensor.cols()));
  thimble::dequantize_row(tensor.type, tensor.row(0), tensor.cols(), row.data());
  thimble::dequantize_row(tensor.type, tensor.row(tensor.rows() - 1), tensor.cols(), row.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
    const thimble::GgufFile file = thimble::parse_gguf(bytes, "fuzz");
    for (const thimble::GgufTensor& t : file.tensors) touch({t.type, t.shape, t.data, nullptr});
    thimble::gguf_vocabulary(file);
    thimble::ModelConfig config = thimble::gguf_config(file);
    for (const auto& [name, tensor] : thimble::gguf_tensors(file, nullptr, config)) touch(tensor);
  } catch (const thimble::Error&) {
  }
  return 0;
}
