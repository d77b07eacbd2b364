#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/progress.h"
#include "models/model.h"
#include "train/trainer.h"

namespace thimble {

// Settings that are tried, and how far they came.
struct SweepTrial {
  double learning_rate = 0;
  int rank = 0;
  double alpha = 0;  // in proportion to the rank, so that the adapter's scale stays the job's
  int rung = 0;      // the last that it was trained in, from 1
  int64_t steps = 0;               // of that rung's training
  std::optional<double> dev_loss;  // of its best evaluation; not given: it diverged
};

struct SweepResult {
  std::vector<SweepTrial> trials;  // the winner first, then by rung and loss
  int rungs = 0;                   // that were finished
  double seconds = 0;
  bool out_of_time = false;  // the last rung was not finished and counts for nothing
};

struct SweepCallbacks {
  ProgressFn progress;
  std::function<void(const SweepTrial&)> on_trial;
  const std::atomic<bool>* cancelled = nullptr;
};

// Tries a quarter, half, one, two and four times the learning rate with half, one and two times the rank by successive
// halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): every rung trains those that are left for twice the steps of
// the one before, each with its whole schedule, and keeps the better half by the dev rows' loss. How many steps the
// first rung gets follows from the time that two steps take here, so that all rungs fit into `seconds`; where they
// don't, the ranks are left alone. Throws Error where even that doesn't fit, saying what would, where there are no dev
// rows, where nothing but divergence came of it, and as train() does. Interrupted, it throws too.
SweepResult sweep(const Model& model, const TrainConfig& config, std::span<const TrainRow> train_rows,
                  std::span<const TrainRow> dev_rows, double seconds, const SweepCallbacks& callbacks = {});

}  // namespace thimble
