#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/encode.h"
#include "data/job.h"
#include "formats/adapter.h"
#include "train/run_choice.h"
#include "train/trainer.h"

namespace thimble {

// What a run is trained on, told before its first step and kept in the report.
struct DataCard {
  std::string objective;  // what is minimised, in words
  size_t train_rows = 0, dev_rows = 0, dropped_rows = 0;
  size_t pairs = 0, wanted = 0, unwanted = 0;   // of the training rows: with a rejected answer; without, by label
  size_t cut_rows = 0;     // whose earlier turns were taken out, of both parts
  int64_t cut_tokens = 0;  // of these turns; none of them trained
  std::map<std::string, size_t> kinds;          // as the rows label themselves, or by their number of calls
  std::map<std::string, size_t> tools;          // gold calls of each
  std::map<std::string, size_t> mixed;          // training rows of other jobs, by name
  std::array<int64_t, kRoles> tokens{};         // of all training rows, by Role
  int64_t trained_tokens = 0;
  int64_t longest = 0;                          // tokens of the longest row
  std::vector<std::string> notes;               // what was noticed and let pass: near duplicates, dropped rows
};

// A use case's rows, checked, split and encoded.
struct TrainingData {
  std::vector<Row> rows;             // of train.jsonl, or of the job's file of preferences
  std::vector<TrainRow> train, dev;  // encoded; their `row` is the line in train.jsonl; pairs as train/preference.h
                                     // has them
  std::vector<Row> dev_rows;         // dev rows unencoded, for the task's own metric: those with a right answer
  DataCard card;
  std::shared_ptr<const Teacher> teacher;  // of [distill], where one runs beside; null: none, or saved tokens
  EncodedRow example;                // the first row, to be shown with its trained tokens marked
  std::optional<EncodedRow> rejected_example;  // and its rejected answer
};

// Reads the job's tuning_file() and refuses what would train on nothing or on something wrong, by row numbers.
// test.jsonl is opened for one thing only: to refuse rows that stand in both.
// `rewrite`, where it is given, says what is learned instead of each row of the training part; nothing: it is left out.
using RewriteRows = std::function<std::vector<std::optional<Row>>(std::span<const Row> rows)>;
TrainingData prepare_training(const Job& job, const PromptStyle& style, const RewriteRows& rewrite = {});

// The teacher of a job's [distill]. Throws Error where it has another vocabulary than the student (naming both), or
// its adapter was taught with other prompts than the job's.
std::shared_ptr<const Teacher> load_teacher(const Job& job, const Tokenizer& student);

TrainConfig train_config(const Job& job, const Teacher* teacher = nullptr);

// A finished run: runs/<time>/adapter (PEFT, with the job manifest beside it), or the trained model with the manifest in
// it, and history.json.
struct TunedRun {
  std::filesystem::path folder;
  TrainResult result;
  std::optional<double> call_threshold;  // as the dev part gave it
  std::filesystem::path adapter() const { return folder / "adapter"; }
  std::filesystem::path trained() const { return run_result(folder); }
};

// Chooses JobManifest::call_threshold on the dev part: for the base model with a trained adapter, or, where `model` is
// given, for that one alone.
using CalibrateCalls =
    std::function<std::optional<double>(const LoraAdapter& adapter, std::shared_ptr<const Model> model)>;

// Trains and writes the run's folder, which is locked meanwhile. Whatever ends the process, the same call goes on from
// the last checkpoint and ends with the same bytes. A diverged run is given up: what was best of it stays as last_good.
// Throws Error as train() does, and where the run is another process's or the one to resume can't be gone on with.
TunedRun tune_job(const Job& job, const Model& model, const TrainingData& data, TrainCallbacks callbacks,
                  const CalibrateCalls& calibrate, const RunChoice& choice = {});

}  // namespace thimble
