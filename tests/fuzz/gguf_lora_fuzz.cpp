#include <cstddef>
#include <cstdint>
#include <span>

#include "core/error.h"
#include "formats/gguf_lora.h"

// What is read as an adapter has whole factors of one rank.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  thimble::ModelConfig base;  // of tests/formats/gguf_lora_test.cpp, which the corpus was written by
  base.family = "llama";
  base.hidden = 16;
  base.heads = 4;
  base.kv_heads = 2;
  base.head_dim = 4;
  try {
    const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
    const thimble::LoraAdapter adapter = thimble::parse_gguf_lora(bytes, "fuzz", base);
    for (const auto& [name, module] : adapter.modules)
      if (module.a.size() != static_cast<size_t>(module.in * adapter.rank) ||
          module.b.size() != static_cast<size_t>(module.out * adapter.rank))
        __builtin_trap();
  } catch (const thimble::Error&) {
  }
  return 0;
}
