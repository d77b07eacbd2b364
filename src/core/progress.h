#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace thimble {

// What long work tells whoever watches it; the command line draws it, the library never prints.
struct Progress {
  std::string stage;   // what is being done, in the user's words
  double done = 0;     // in units of `unit`
  double total = 0;    // 0 where unknown
  std::string unit;    // "bytes", "tokens", "rows"
  std::string detail;  // free text for the end of the line: loss, learning rate
};

using ProgressFn = std::function<void(const Progress&)>;  // may be empty

}  // namespace thimble
