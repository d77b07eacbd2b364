#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/progress.h"
#include "data/encode.h"
#include "data/row.h"
#include "infer/engine.h"

namespace thimble {

struct PreferenceOptions {
  int samples = 4;           // answers to each row
  int keep = 1;              // most wrong ones of a row; those that were given most often
  double temperature = 1;
  int adapter = 0;           // the engine's number; 0: the base model
  int max_new_tokens = 256;
  uint64_t seed = 1;
};

// A row and a wrong answer of the model's own to it.
struct WrongAnswer {
  size_t row = 0;  // index into the rows
  RejectedAnswer answer;
  int times = 0;   // of the row's samples
};

struct FoundPreferences {
  std::vector<WrongAnswer> wrong;  // in the order of the rows
  size_t rows_wrong = 0;           // with at least one
  size_t answers = 0, answers_wrong = 0;
};

// Samples answers, constrained to the tools' schemas as the model will answer, and keeps those that are not exact
// (eval/score.h). What ran into max_new_tokens is no answer and is left out.
FoundPreferences find_preferences(Engine& engine, const PromptStyle& style, std::span<const Row> rows,
                                  const PreferenceOptions& options, const ProgressFn& progress = {});

// A rejected answer as rows carry it: {"calls"} or {"answer"}, and "plan" where there is one.
Json rejected_to_json(const RejectedAnswer& answer);

}  // namespace thimble
