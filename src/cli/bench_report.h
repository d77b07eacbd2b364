#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "cli/start_up.h"
#include "infer/benchmark.h"

namespace thimble {

// Everything that `thimble bench` measured, and its three forms.
struct BenchReport {
  std::string model;      // as the user named it
  std::string processor;  // empty: unknown
  int threads = 1;
  std::string cpu;  // the level that was used
  std::string precision;
  int repeat = 1;
  ModelWork work;
  std::vector<BenchmarkResult> results;
  MachinePeaks limits;
  std::optional<StartUp> start_up;
  size_t loaded_memory = 0;  // bytes
  size_t peak_memory = 0;    // bytes, before the machine's limits were measured
};

std::string bench_json(const BenchReport& report);      // for programs: one object on one line
std::string bench_text(const BenchReport& report);      // for a terminal
std::string bench_markdown(const BenchReport& report);  // a table for a page, with the command that makes it

}  // namespace thimble
