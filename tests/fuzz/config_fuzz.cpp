#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "formats/model_config.h"

// config.json: what is read is a sensible model, and writes and reads back the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const thimble::ModelConfig config =
        thimble::parse_model_config({reinterpret_cast<const char*>(data), size}, "config.json");
    if (config.family != "llama") return 0;
    const thimble::ModelConfig back =
        thimble::parse_model_config(thimble::model_config_json(config, "bfloat16"), "written");
    if (back.head_dim != config.head_dim || back.vocab != config.vocab || back.rope_theta != config.rope_theta ||
        back.rope_scaling.has_value() != config.rope_scaling.has_value())
      __builtin_trap();
  } catch (const thimble::Error&) {
  }
  return 0;
}
