#pragma once

#include <stdexcept>
#include <string>

namespace thimble {

// Everything that a user can cause: a bad file, flag, row or request. The message is one clear sentence that
// says what is wrong, where (file, row, byte, field) and how to mend it. Caught in three places only: the
// command line, the request handler, a language binding. A broken invariant is an assertion instead, and bad
// model output is data, not an error.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace thimble
