#include "train/sweep.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/clock.h"
#include "core/error.h"

namespace thimble {
namespace {

constexpr int64_t kFewestSteps = 4;  // of the first rung: less says nothing

std::vector<SweepTrial> candidates(const TrainConfig& config, bool ranks) {
  std::vector<SweepTrial> out;
  for (const double rank_factor : ranks ? std::vector{0.5, 1.0, 2.0} : std::vector{1.0}) {
    const int rank = std::clamp(static_cast<int>(std::lround(config.lora.rank * rank_factor)), 1, 1024);
    if (rank_factor != 1 && rank == config.lora.rank) continue;
    for (const double factor : {0.25, 0.5, 1.0, 2.0, 4.0}) {
      const double rate = config.learning_rate * factor;
      if (rate >= 1) continue;
      out.push_back({rate, rank, static_cast<double>(config.lora.alpha) * rank / config.lora.rank, 0, 0, {}});
    }
  }
  return out;
}

// Trainings and their steps, in units of the first rung's, that halving down to one takes.
struct Ladder {
  int rungs = 0;
  double trainings = 0, steps = 0;
  explicit Ladder(size_t count) {
    for (double n = static_cast<double>(count), s = 1;; n = std::ceil(n / 2), s *= 2) {
      ++rungs;
      trainings += n;
      steps += n * s;
      if (n <= 1) break;
    }
  }
};

class Sweep {
 public:
  Sweep(const Model& model, const TrainConfig& config, std::span<const TrainRow> train_rows,
        std::span<const TrainRow> dev_rows, double seconds, const SweepCallbacks& callbacks)
      : model_(model), config_(config), train_(train_rows), dev_(dev_rows), seconds_(seconds), callbacks_(callbacks) {
    config_.checkpoint.clear();
    config_.evaluations = 1;
    config_.patience = 0;
  }

  SweepResult run() {
    probe();
    out_.trials = candidates(config_, true);
    if (first_rung_steps(out_.trials.size()) < kFewestSteps) out_.trials = candidates(config_, false);
    const Ladder ladder(out_.trials.size());
    int64_t steps = first_rung_steps(out_.trials.size());
    if (steps < kFewestSteps)
      throw Error(fmt::format("sweep: {:.1f} minutes are too short for {} settings here; give --minutes {:.0f} or more",
                              seconds_ / 60, out_.trials.size(),
                              std::ceil((fixed_ * ladder.trainings + step_ * ladder.steps * kFewestSteps +
                                         seconds_since(start_)) / 60 + 0.5)));
    size_t left = out_.trials.size();
    for (int rung = 1; rung <= ladder.rungs && !out_.out_of_time; ++rung, steps *= 2) {
      if (!climb(rung, steps, left)) break;
      left = (left + 1) / 2;
    }
    if (!out_.trials.front().dev_loss)
      throw Error("sweep: every setting diverged; lower train.learning_rate a hundredfold and look at the rows");
    out_.seconds = seconds_since(start_);
    return std::move(out_);
  }

 private:
  // Two steps with the job's own settings: what a training costs beside its steps, and a step. What is wrong with the
  // rows or the settings shows here.
  void probe() {
    TrainConfig two = config_;
    const auto begin = Clock::now();
    const TrainResult result = train_for(two, 2);
    double in_steps = 0;
    int64_t tokens = 0;
    for (const HistoryPoint& p : result.history) {
      if (p.step > 0) in_steps += static_cast<double>(p.tokens - tokens) / std::max(p.tokens_per_second, 1e-9);
      tokens = p.tokens;
    }
    step_ = in_steps / static_cast<double>(std::max<int64_t>(result.steps, 1));
    fixed_ = std::max(0.0, seconds_since(begin) - in_steps);
  }

  int64_t first_rung_steps(size_t count) const {
    const Ladder ladder(count);
    const double time = seconds_ - seconds_since(start_) - fixed_ * ladder.trainings;
    const auto longest = static_cast<double>(planned_steps(config_, train_.size()) >> (ladder.rungs - 1));
    return static_cast<int64_t>(std::min(time / std::max(step_ * ladder.steps, 1e-9),
                                         std::max(longest, static_cast<double>(kFewestSteps))));
  }

  TrainResult train_for(TrainConfig config, int64_t steps) {
    config.epochs = epochs_of(config, train_.size(), steps);
    std::atomic<bool> stop{false};
    TrainCallbacks inner;
    inner.cancelled = &stop;
    inner.progress = [&](const Progress&) {
      if (callbacks_.cancelled != nullptr && callbacks_.cancelled->load()) stop = true;
      if (seconds_since(start_) > seconds_) stop = true;
    };
    TrainResult result = train(model_, config, train_, dev_, inner);
    if (callbacks_.cancelled != nullptr && callbacks_.cancelled->load()) throw Error("sweep: stopped");
    return result;
  }

  // Trains those that are left and puts the better first. False where time ran out before the last of them.
  bool climb(int rung, int64_t steps, size_t left) {
    std::vector<SweepTrial> trained(out_.trials.begin(), out_.trials.begin() + static_cast<std::ptrdiff_t>(left));
    for (size_t i = 0; i < left; ++i) {
      SweepTrial& trial = trained[i];
      if (callbacks_.progress)
        callbacks_.progress({fmt::format("sweep, rung {}", rung), static_cast<double>(i), static_cast<double>(left),
                             "settings", fmt::format("rate {:g}, rank {}", trial.learning_rate, trial.rank)});
      TrainConfig config = config_;
      config.learning_rate = trial.learning_rate;
      config.lora.rank = trial.rank;
      config.lora.alpha = static_cast<float>(trial.alpha);
      trial.rung = rung;
      trial.steps = steps;
      trial.dev_loss.reset();
      try {
        const TrainResult result = train_for(config, steps);
        if (result.cancelled) {
          out_.out_of_time = true;
          return false;
        }
        // At its end: the best of a training that got worse is its start.
        trial.dev_loss = result.history.back().dev_loss;
      } catch (const Error&) {
        if (callbacks_.cancelled != nullptr && callbacks_.cancelled->load()) throw;
        // The probe went well with the same rows: this is the rate's doing.
      }
      if (callbacks_.on_trial) callbacks_.on_trial(trial);
    }
    std::stable_sort(trained.begin(), trained.end(), [](const SweepTrial& a, const SweepTrial& b) {
      return a.dev_loss && (!b.dev_loss || *a.dev_loss < *b.dev_loss);
    });
    std::copy(trained.begin(), trained.end(), out_.trials.begin());
    out_.rungs = rung;
    return true;
  }

  const Model& model_;
  TrainConfig config_;
  std::span<const TrainRow> train_, dev_;
  double seconds_;
  const SweepCallbacks& callbacks_;
  Clock::time_point start_ = Clock::now();
  double fixed_ = 0, step_ = 0;  // seconds
  SweepResult out_;
};

}  // namespace

SweepResult sweep(const Model& model, const TrainConfig& config, std::span<const TrainRow> train_rows,
                  std::span<const TrainRow> dev_rows, double seconds, const SweepCallbacks& callbacks) {
  if (dev_rows.empty()) throw Error("sweep: there are no dev rows to choose by; raise train.dev_share");
  return Sweep(model, config, train_rows, dev_rows, seconds, callbacks).run();
}

}  // namespace thimble
