#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/job.h"
#include "eval/evaluate.h"
#include "train/tune.h"

namespace thimble {

// One line of the before/after table.
struct SystemResult {
  std::string name;       // "base, zero-shot", "tuned"
  std::string how;        // in a few words: "tools in the prompt, constrained"
  Score score;
  double seconds_per_row = 0;
  double tokens_per_row = 0;           // read and written
  std::optional<double> cost_per_1000;  // in the currency of thimble.toml's prices; only of endpoints that have them
};

// A bar of thimble.toml and whether it was cleared.
struct BarResult {
  std::string name;
  double value = 0, bar = 0;
  bool at_least = true;  // else at most
  bool cleared = false;
};
std::vector<BarResult> check_bars(const Bars& bars, const Score& score);
inline bool go(const std::vector<BarResult>& bars) {
  for (const BarResult& b : bars)
    if (!b.cleared) return false;
  return true;
}

struct ReportData {
  const Job* job = nullptr;
  std::string base_name;
  std::vector<SystemResult> systems;   // the last one is the tuned model
  std::vector<BarResult> bars;
  std::vector<std::string> advice;     // assess's, with its reasons
  const Evaluation* tuned = nullptr;
  const DataCard* card = nullptr;      // absent where the run was not trained in this sitting
  std::vector<HistoryPoint> history;
  int64_t best_step = 0;
  double train_seconds = 0, assess_seconds = 0, eval_seconds = 0;
  size_t peak_memory_bytes = 0;
  std::string adapter_path, chat_command;
};

// One HTML page that needs nothing else: styles and drawings stand in it, no script, no address outside.
std::string render_report(const ReportData& data);

}  // namespace thimble
