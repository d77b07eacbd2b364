#include <cstddef>
#include <cstdint>
#include <string_view>

#include "calls/hermes.h"
#include "core/error.h"
#include "data/read.h"

// Rows come from anywhere: reading them ends in rows or in Error, and what was read is written and read back the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  thimble::parse_answer(text);
  try {
    for (const thimble::Row& row : thimble::parse_rows(text, "rows")) {
      if (thimble::parse_answer(thimble::render_calls(row.calls)).calls.size() > row.calls.size()) __builtin_trap();
    }
  } catch (const thimble::Error&) {
  }
  return 0;
}
