#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/progress.h"
#include "models/model.h"
#include "train/distill.h"
#include "train/history.h"
#include "train/memory_plan.h"
#include "train/optimizer.h"
#include "train/pack.h"
#include "train/preference_loss.h"
#include "train/schedule.h"
#include "train/trainable.h"

namespace thimble {

struct TrainConfig {
  LoraConfig lora;        // without effect where the weights are trained
  WeightsConfig weights;
  // An adapter of this very base to go on from, instead of one that changes nothing: of the same rank, scale, kind and
  // layers. Null: none.
  std::shared_ptr<const LoraAdapter> start;
  OptimizerConfig optimizer;
  double learning_rate = 1e-3;
  Decay decay = Decay::kCosine;
  double warmup_share = 0.05;   // of all steps
  double epochs = 3;            // parts of one too
  double revisit = 1;           // share of the rows that epochs after the first visit (revisits.h)
  int batch_rows = 16;          // rows an optimizer step
  int64_t token_budget = 2048;  // tokens a micro-batch
  uint64_t seed = 1;
  GemmPrecision precision = GemmPrecision::kBF16;
  Recompute recompute = Recompute::kAuto;
  size_t memory_limit = 0;  // bytes that the plan must stay below; 0: what the machine has free
  double neftune = 0;  // TrainOps::Options::neftune
  // What is minimised; with neither, the cross-entropy of trained tokens. Rows stand as train/preference.h says.
  std::optional<PreferenceConfig> preference;
  std::optional<DistillConfig> distill;
  int evaluations = 10;  // of the dev rows, spread over the run; one more before the first step
  std::string chosen_by = "dev loss";  // what TrainCallbacks::metric is, in words: part of what a run is
  int patience = 0;      // stop after so many evaluations without a better one; 0 = never
  // Where the state is saved at every evaluation and every so many seconds (0: after every step), and where a run goes
  // on from; empty = nowhere.
  std::filesystem::path checkpoint;
  double checkpoint_seconds = 300;

  // Neighbours in the data that are one row to everything here: a right and a wrong answer.
  int together() const { return preference && preference->pairs() ? 2 : 1; }
};

struct TrainCallbacks {
  ProgressFn progress;
  std::function<void(const HistoryPoint&)> on_step;
  // The task's own measure of what is trained as it stands, higher is better; nothing where it isn't measured at that
  // step. Where it is there it chooses the best checkpoint, among equal ones the dev loss does; without any, the dev
  // loss alone. Called at every evaluation.
  std::function<std::optional<double>(const Trainable&, int64_t step)> metric;
  double peak_operations = 0;  // a second that the machine can do, as it was measured; 0: unknown
  const std::atomic<bool>* cancelled = nullptr;
  // What went wrong and is survived: a checkpoint that can't be written.
  std::function<void(const std::string&)> warn;
  // Called before a diverged run throws, with what is trained as it was at its best evaluation and that evaluation's
  // step (0: none after the start). Says where it was put, for the message; may say nothing.
  std::function<std::string(const Trainable&, int64_t best_step)> keep_last_good;
  ReduceGradients reduce;
};

struct TrainResult {
  Trainable trained;  // at its best evaluation; the last step's where there are no dev rows
  int64_t best_step = 0;
  std::optional<double> best_dev_loss;
  std::optional<double> best_metric;
  std::vector<HistoryPoint> history;
  int64_t steps = 0;  // taken, of
  int64_t planned_steps = 0;
  int64_t tokens = 0;
  int64_t trained_tokens = 0;
  double seconds = 0;
  bool cancelled = false;
  bool stopped_early = false;
  MemoryPlan memory;
};

// Fine-tunes an adapter. The same model, settings and rows give the same adapter, also over an interruption.
// Throws Error where the settings make no sense, a row doesn't fit the model, the model's weights are not all finite,
// memory does not suffice, a loss or gradient is not a number or diverges as divergence.h says (with step and rows), or
// the checkpoint belongs to another run.
TrainResult train(const Model& model, const TrainConfig& config, std::span<const TrainRow> train_rows,
                  std::span<const TrainRow> dev_rows, const TrainCallbacks& callbacks = {});

// What the settings train of the model, as it is before the first step. Throws Error as train() does.
Trainable make_trainable(const Model& model, const TrainConfig& config);

// Mean loss of the rows' trained tokens; where nothing is trained the base model's.
double evaluate_loss(const Model& model, const Trained& trained, std::span<const TrainRow> rows, GemmPrecision precision,
                     int64_t token_budget);

int64_t planned_steps(const TrainConfig& config, size_t rows);
double epochs_of(const TrainConfig& config, size_t rows, int64_t steps);  // how many have so many steps

}  // namespace thimble
