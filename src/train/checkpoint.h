#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/optimizer.h"
#include "train/pack.h"
#include "train/revisits.h"
#include "train/trainer.h"

namespace thimble {

// Where a run stands between two optimizer steps, beside the parameters and the optimizer's moments.
struct RunState {
  explicit RunState(size_t train_rows = 0) : revisits(train_rows) {}
  int64_t step = 0;           // optimizer steps taken
  int64_t micro_batches = 0;  // done; what dropout's randomness is keyed by
  int64_t tokens = 0;
  int64_t trained_tokens = 0;
  int64_t sampled_tokens = 0;  // HistoryPoint
  double seconds = 0;
  int64_t best_step = 0;
  std::optional<double> best_dev_loss;
  std::optional<double> best_metric;
  int evaluations_since_best = 0;
  std::vector<float> best;  // the parameters' values at the best evaluation, in their order; empty before the first
  std::vector<HistoryPoint> history;
  Revisits revisits;
};

// What a run must have in common with a checkpoint to go on from it: name -> value, compared and named in errors.
using RunIdentity = std::map<std::string, std::string>;
RunIdentity run_identity(const Model& model, const TrainConfig& config, std::span<const TrainRow> train_rows,
                         std::span<const TrainRow> dev_rows);

// One file, written beside and renamed, so that it is always whole: safetensors with the parameters, their best
// values and both moments under their names, and the rest as JSON in the file's metadata.
void save_checkpoint(const std::filesystem::path& path, const RunIdentity& identity, const RunState& state,
                     const Optimizer& optimizer);

// What keeps a run of this identity from going on from the checkpoint ("belongs to a run with another learning rate
// (0.001 there, 0.002 now)"); empty: nothing. Throws Error where the file is broken.
std::string checkpoint_difference(const std::filesystem::path& path, const RunIdentity& identity);

// False where there is no file. Throws Error where it is broken or belongs to another run, saying what differs.
bool load_checkpoint(const std::filesystem::path& path, const RunIdentity& identity, RunState& state,
                     Optimizer& optimizer);

}  // namespace thimble
