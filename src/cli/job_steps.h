#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "cli/session.h"
#include "data/job.h"
#include "eval/assess.h"
#include "train/tune.h"

namespace thimble {

// Steps that several commands share.

// Shows what will be trained on and the memory plan on `out`, then trains with progress on standard error; with `json`
// every step is an object on a line of standard output.
TunedRun tune_with_progress(const Job& job, bool dry_run, RunChoice choice, TrainingData& data, std::FILE* out,
                            bool json = false);

// What the teacher of a job's [distill] answers to rows, asked as it was taught itself: the rows with its answers
// instead of their own. Nothing where it did not come to an end, can't be read, or (for jobs with plans) has no plan.
std::vector<std::optional<Row>> teacher_answers(const Job& job, std::span<const Row> rows, std::FILE* out);

// A job's model, ready to be evaluated or talked to.
struct EvalSetup {
  Session session;
  PromptStyle style;
  std::string adapter;  // the adapter's folder, or the model that a run trained whole; empty: the base model
};
// Without an adapter given, what `run` trained (empty: the newest finished one); `base` means the base alone.
// `tools_in_prompt` ("yes", "no") overrides what the manifest or the job says.
EvalSetup open_eval(const Job& job, ModelOptions options, bool base, const std::string& tools_in_prompt,
                    const std::filesystem::path& run = {});

// The before/after table; the last line is the one that matters.
void print_score_table(std::span<const SystemResult> systems);

// Assesses with the base model and tells the result on standard output.
Assessment assess_with_progress(const Job& job, bool quiet);

// A job's test rows; what is odd about them (unknown tools, arguments that schemas reject) is said on standard error.
std::vector<Row> read_test_rows(const Job& job, const std::filesystem::path& file);

}  // namespace thimble
