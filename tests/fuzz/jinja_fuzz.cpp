#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "text/jinja.h"

// Templates come with models that anyone can publish: parsing and rendering end in text or in Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto context = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "naïve 你好 \n x"},
                 {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.5}}}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "n": 7, "d": {"b": 2, "a": [1, [2]]}})");
  thimble::jinja::RenderOptions options;
  options.max_output = 1 << 16;
  options.max_steps = 20'000;
  options.max_bytes = 1 << 24;
  try {
    const auto made = thimble::jinja::Template::parse(std::string(reinterpret_cast<const char*>(data), size));
    made.render_marked(context, options);
  } catch (const thimble::Error&) {
  }
  return 0;
}
