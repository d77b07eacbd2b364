#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/encode.h"
#include "data/job.h"
#include "formats/adapter.h"
#include "train/trainer.h"

namespace thimble {

// What a run is trained on, told before its first step and kept in the report.
struct DataCard {
  size_t train_rows = 0, dev_rows = 0, dropped_rows = 0;
  std::map<std::string, size_t> kinds;          // as the rows label themselves, or by their number of calls
  std::map<std::string, size_t> tools;          // gold calls of each
  std::array<int64_t, kRoles> tokens{};         // of all training rows, by Role
  int64_t trained_tokens = 0;
  int64_t longest = 0;                          // tokens of the longest row
  std::vector<std::string> notes;               // what was noticed and let pass: near duplicates, dropped rows
};

// A use case's rows, checked, split and encoded.
struct TrainingData {
  std::vector<Row> rows;             // of train.jsonl
  std::vector<TrainRow> train, dev;  // encoded; their `row` is the line in train.jsonl
  std::vector<Row> dev_rows;         // the same rows unencoded, for the task's own metric
  DataCard card;
  EncodedRow example;                // the first row, to be shown with its trained tokens marked
};

// Reads train.jsonl and refuses what would train on nothing or on something wrong, by row numbers. test.jsonl is
// opened for one thing only: to refuse rows that stand in both.
TrainingData prepare_training(const Job& job, const PromptStyle& style);

TrainConfig train_config(const Job& job);

// A finished run: runs/<time>/adapter (PEFT, with the job manifest beside it) and history.json.
struct TunedRun {
  std::filesystem::path folder;
  TrainResult result;
  std::optional<double> call_threshold;  // as the dev part gave it
  std::filesystem::path adapter() const { return folder / "adapter"; }
};

// Chooses JobManifest::call_threshold for a trained adapter, on the dev part.
using CalibrateCalls = std::function<std::optional<double>(const LoraAdapter&)>;

// Trains and writes the run's folder; `resume` names a run to go on with, empty starts a new one.
TunedRun tune_job(const Job& job, const Model& model, const TrainingData& data, const TrainCallbacks& callbacks,
                  const CalibrateCalls& calibrate, const std::filesystem::path& resume = {});

}  // namespace thimble
