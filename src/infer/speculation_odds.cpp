#include "infer/speculation_odds.h"

namespace thimble {
namespace {

// A pass over the weights costs about as much as computing this many rows with them: the machine's bandwidth against
// its arithmetic, whatever the model's size.
constexpr double kRowsAPass = 5;

constexpr int kRetry = 24;  // chances after which a source is tried again

}  // namespace

bool SpeculationOdds::pays(int source, int running, double cost) {
  Record& record = records_[static_cast<size_t>(source - 1)];
  if (record.right < running / (running + kRowsAPass) + cost && ++record.passed < kRetry) return false;
  record.passed = 0;
  return true;
}

void SpeculationOdds::learn(int source, int offered, int right) {
  if (offered == 0) return;
  Record& record = records_[static_cast<size_t>(source - 1)];
  record.right += 0.1 * (static_cast<double>(right) / offered - record.right);
}

}  // namespace thimble
