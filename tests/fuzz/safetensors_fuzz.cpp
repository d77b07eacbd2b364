#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/error.h"
#include "formats/safetensors.h"
#include "tensor/quantize.h"

// Whatever the parser lets through must lie inside the file and have the size that its shape says.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
    const thimble::SafetensorsFile file = thimble::parse_safetensors(bytes, "fuzz");
    for (const thimble::SafetensorsEntry& entry : file.tensors) {
      const auto type = entry.weight_type();
      if (!type) continue;
      const thimble::Tensor tensor{*type, entry.shape, entry.bytes.data(), nullptr};
      if (tensor.bytes() != entry.bytes.size()) __builtin_trap();
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      thimble::dequantize_row(*type, tensor.data, tensor.elements(), values.data());
    }
  } catch (const thimble::Error&) {
  }
  return 0;
}
