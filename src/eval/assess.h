#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/progress.h"
#include "data/job.h"
#include "eval/report.h"
#include "infer/engine.h"

namespace thimble {

// Is the job worth a model of its own? What can be had without one, on a sample of the test set.
struct Assessment {
  size_t sample = 0;
  std::vector<SystemResult> systems;  // base zero-shot, base few-shot, the large endpoint where one is given
  bool worth_it = false;
  std::vector<std::string> advice;    // the verdict first, then its reasons, a sentence each
  double seconds = 0;
};

// The base model sees the tools in its prompt, whatever the job says: without them and without training it could
// not know them. Its calls are held to the schemas. Shots are training rows, chosen by the job's seed.
Assessment assess(Engine& base, const Job& job, std::span<const Row> test, std::span<const Row> train,
                  const ProgressFn& progress = {});

// `count` different rows, spread over kinds and tools, the same for the same seed.
std::vector<Row> choose_shots(std::span<const Row> train, int count, uint64_t seed);
// A seeded sample in the order of the file; all rows where there are no more than `count`.
std::vector<Row> sample_rows(std::span<const Row> rows, int count, uint64_t seed);

}  // namespace thimble
