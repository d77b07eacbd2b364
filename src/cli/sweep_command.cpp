#include <fmt/core.h>

#include <atomic>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "formats/pull.h"
#include "train/sweep.h"

namespace thimble {
namespace {

std::string loss_of(const SweepTrial& trial) {
  return trial.dev_loss ? fmt::format("{:.4f}", *trial.dev_loss) : "diverged";
}

// What the user may copy into thimble.toml, with the table that it comes from.
std::string settings_text(const SweepResult& result) {
  const SweepTrial& best = result.trials.front();
  std::string out = fmt::format(
      "# The best of {} settings by the dev part's loss, after {} rungs of successive halving.\n# thimble.toml is as "
      "it was: put these lines there, if you like.\n[train]\nlearning_rate = {:g}\nrank = {}\nalpha = {:g}\n\n"
      "# rung  steps  learning rate  rank  dev loss\n",
      result.trials.size(), result.rungs, best.learning_rate, best.rank, best.alpha);
  for (const SweepTrial& t : result.trials)
    out += fmt::format("# {:>4}  {:>5}  {:>13g}  {:>4}  {}\n", t.rung, t.steps, t.learning_rate, t.rank, loss_of(t));
  return out;
}

Json trial_json(const SweepTrial& t) {
  Json out{{"learning_rate", t.learning_rate}, {"rank", t.rank}, {"alpha", t.alpha}, {"rung", t.rung},
           {"steps", t.steps}};
  out["dev_loss"] = t.dev_loss ? Json(*t.dev_loss) : Json();
  return out;
}

}  // namespace

int sweep_command(const TuneOptions& options) {
  Job job = load_job(options.job);
  if (!options.model.empty()) job.base = options.model;
  if (job.train.method == "full")
    throw Error(fmt::format("{}: a sweep tries adapters' ranks, but train.method is \"full\"; set another one",
                            (job.folder / "thimble.toml").string()));
  const auto model = load_model(resolve_model(job.base));
  const PromptStyle style(job, model->vocabulary);
  const TrainingData data = prepare_training(job, style);
  std::FILE* out = options.json ? stderr : stdout;
  fmt::print(out, "{} rows to train on, {} of the dev part to choose by, {:g} minutes\n", data.card.train_rows,
             data.card.dev_rows, options.minutes);
  std::fflush(out);

  const Interrupt interrupt;
  std::atomic<bool> cancelled{false};
  ProgressLine line;
  SweepCallbacks callbacks;
  callbacks.cancelled = &cancelled;
  callbacks.progress = [&](const Progress& p) {
    line.show(p);
    if (Interrupt::pressed()) cancelled = true;
  };
  callbacks.on_trial = [&](const SweepTrial& t) {
    if (Interrupt::pressed()) cancelled = true;
    line.clear();
    fmt::print(out, "rung {}  {:>5} steps  learning rate {:<9.3g} rank {:<4} dev loss {}\n", t.rung, t.steps,
               t.learning_rate, t.rank, loss_of(t));
    std::fflush(out);
  };
  const SweepResult result =
      sweep(*model, train_config(job, data.teacher.get()), data.train, data.dev, 60 * options.minutes, callbacks);
  line.clear();
  const auto file = job.folder / "sweep.toml";
  write_file(file, settings_text(result));
  if (options.json) {
    Json trials = Json::array();
    for (const SweepTrial& t : result.trials) trials.push_back(trial_json(t));
    fmt::print("{}\n", Json{{"best", trial_json(result.trials.front())},
                            {"trials", trials},
                            {"rungs", result.rungs},
                            {"out_of_time", result.out_of_time},
                            {"seconds", result.seconds},
                            {"settings", file.string()}}
                           .dump());
    return kOk;
  }
  if (result.out_of_time) fmt::print("the time is up: what the last rung had not finished counts for nothing\n");
  fmt::print("\n{}\nwritten to {}; thimble.toml is as it was\n", settings_text(result), file.string());
  return kOk;
}

}  // namespace thimble
