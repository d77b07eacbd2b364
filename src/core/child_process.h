#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace thimble {

struct ChildResult {
  int status = -1;            // its exit status; 128 + the signal that ended it
  std::string out;            // its standard output
  double first_output_s = 0;  // from its start to its first byte of output; to its end where it wrote none
  double seconds = 0;         // from its start to its end
  size_t peak_memory_bytes = 0;
};

// Runs a program with these arguments (the program's own name not among them) and waits for its end. Its standard input
// is empty, its standard error is dropped. Throws Error where it can't be started.
ChildResult run_child(const std::string& program, const std::vector<std::string>& arguments);

// The path of the program that runs.
std::string own_program();

}  // namespace thimble
