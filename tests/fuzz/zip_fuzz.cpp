#include <cstddef>
#include <cstdint>
#include <span>

#include "core/error.h"
#include "formats/zip_member.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size_t bytes = 0;
  try {
    thimble::extract_zip_member({reinterpret_cast<const std::byte*>(data), size}, "fuzz", "m",
                                [&](const void*, size_t count) { bytes += count; });
  } catch (const thimble::Error&) {
  }
  return bytes > (size_t{1} << 32) ? -1 : 0;
}
