#pragma once

#include <cstddef>
#include <string>

namespace thimble {

// What the machine is, apart from its instruction sets (cpu.h) and its free memory (memory.h).
struct Machine {
  std::string name;     // of the processor; empty where the system doesn't say
  int cores = 1;        // that this process may use
  size_t l2_bytes = 0;  // of a core; 0: unknown
  size_t l3_bytes = 0;  // shared; 0: unknown or none
  // Transparent huge pages as Linux has them set: "always", "madvise" or "never". Empty: no such setting.
  std::string huge_pages;
};
Machine describe_machine();

// Cores that this process may use: containers and taskset give fewer than the machine has.
int usable_cores();

}  // namespace thimble
