#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>

namespace thimble {

// One optimizer step, or the evaluation before the first (step 0).
struct HistoryPoint {
  int64_t step = 0;
  int64_t tokens = 0;  // computed so far
  double loss = 0;     // mean over the step's trained tokens
  double smoothed_loss = 0;  // smoothed.h
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping
  double tokens_per_second = 0;
  double seconds = 0;       // since the start, earlier parts of a resumed run included
  double seconds_left = 0;  // until the last step, at the rate so far
  std::optional<double> peak_share;  // of TrainCallbacks::peak_operations (train_work.h)
  std::optional<double> dev_loss;
  std::optional<double> metric;
  std::optional<double> dev_accuracy, dev_margin;  // of preference tuning (PreferenceMeasure)
  std::optional<int64_t> sampled_tokens;           // of on-policy distillation, so far (on_policy.h)
};

// A step as history.json, --json and checkpoints have it: what isn't known is left out. Reading gives the same point,
// to the bit; it throws nlohmann::json::exception where a part is missing or of another type.
nlohmann::ordered_json point_to_json(const HistoryPoint& point);
HistoryPoint point_from_json(const nlohmann::ordered_json& json);

}  // namespace thimble
