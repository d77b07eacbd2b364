#include <fmt/core.h>

#include <atomic>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "cli/training_log.h"
#include "eval/task_metric.h"
#include "formats/pull.h"
#include "kernels/machine_peaks.h"

namespace thimble {
namespace {

// One row with what the model learns to write in bold green; brackets where colours are off, so that a log shows it
// too.
void print_example(const EncodedRow& row, const Tokenizer& tokenizer, std::FILE* out) {
  const bool colours = styled(out, Style::kGreen, "x") != "x";
  fmt::print(out, "row {} as the model sees it; what it learns is {}:\n", row.number,
             colours ? styled(out, Style::kGreen, "green") : "between [[ and ]]");
  for (size_t i = 0; i < row.tokens.size();) {
    size_t end = i;
    while (end < row.tokens.size() && row.trained[end] == row.trained[i]) ++end;
    const std::string text = tokenizer.decode(std::span(row.tokens).subspan(i, end - i));
    if (row.trained[i] == 0)
      fmt::print(out, "{}", styled(out, Style::kDim, text));
    else if (colours)
      fmt::print(out, "{}", styled(out, Style::kGreen, text));
    else
      fmt::print(out, "[[{}]]", text);
    i = end;
  }
  fmt::print(out, "\n");
}

void print_plan(const TrainingData& data, const MemoryPlan& plan, const TrainConfig& config, std::FILE* out) {
  const DataCard& c = data.card;
  fmt::print(out, "\n{} rows to train on, {} set aside as the dev part{}\n",
             human_count(static_cast<double>(c.train_rows)), c.dev_rows,
             c.dropped_rows > 0 ? fmt::format(", {} dropped", c.dropped_rows) : "");
  static constexpr const char* kNames[] = {"system", "user", "assistant", "tool"};
  for (const auto& [name, count] : c.mixed) fmt::print(out, "of them {} of the job {}\n", count, name);
  fmt::print(out, "objective: {}\n", c.objective);
  if (config.preference)
    fmt::print(out, "answers: {}\n",
               c.pairs == 0 ? fmt::format("{} wanted, {} not wanted", c.wanted, c.unwanted)
               : c.wanted + c.unwanted == 0
                   ? fmt::format("{} pairs of a right and a wrong one", c.pairs)
                   : fmt::format("{} pairs, {} wanted and {} not wanted alone", c.pairs, c.wanted, c.unwanted));
  fmt::print(out, "tokens:");
  for (size_t i = 0; i < kRoles; ++i)
    if (c.tokens[i] > 0) fmt::print(out, " {} {}", kNames[i], human_count(static_cast<double>(c.tokens[i])));
  fmt::print(out, "; learned {}; longest row {}\n", human_count(static_cast<double>(c.trained_tokens)), c.longest);
  int64_t separate = 0, computed = 0;
  for (const TrainRow& row : data.train) separate += computed_tokens(row);
  for (const StepPlan& step :
       pack_epoch(data.train, config.batch_rows, config.token_budget, config.seed, 0, config.together()))
    computed += step.tokens;
  if (computed < separate)
    fmt::print(out, "what rows of a step begin with is computed once: {} tokens an epoch instead of {}\n",
               human_count(static_cast<double>(computed)), human_count(static_cast<double>(separate)));
  for (const std::string& note : c.notes) fmt::print(out, "note: {}\n", note);
  const auto mb = [](size_t bytes) { return human_bytes(static_cast<double>(bytes)); };
  fmt::print(out,
             "memory plan: {} (weights {}, {} {}, optimizer {}, activations {}, logits {}, other {}) of {} "
             "available\n",
             mb(plan.total()), mb(plan.weights), config.weights.train ? "trained" : "adapter", mb(plan.trained),
             mb(plan.optimizer), mb(plan.activations), mb(plan.logits), mb(plan.other), mb(plan.available));
  if (plan.recomputed_blocks > 0)
    fmt::print(out, "to fit into that, {} layers are computed a second time on the way back\n", plan.recomputed_blocks);
  if (plan.teacher > 0) fmt::print(out, "of it the teacher: {}\n", mb(plan.teacher));
  if (plan.student > 0) fmt::print(out, "of it the student that answers: {}\n", mb(plan.student));
  fmt::print(out, "{} optimizer steps of {} rows{}, learning rate {:g}, {} on {}\n\n",
             planned_steps(config, data.train.size()), config.batch_rows,
             config.revisit < 1 ? fmt::format(" (after the first epoch the {:g} % with most trouble)",
                                              100 * config.revisit)
                                : "",
             config.learning_rate,
             config.precision == GemmPrecision::kBF16 ? "bf16" : "f32",
             config.weights.train ? "all weights"
                                  : fmt::format("{} rank {}", config.lora.dora ? "DoRA" : "LoRA", config.lora.rank));
}

// What the machine can do in the precision that is trained in. The probe's memory is for reading, which isn't asked.
double peak_of(const TrainConfig& config) {
  const MachinePeaks peaks = PeakProbe(size_t{1} << 20).measure();
  return 1e9 * (config.precision == GemmPrecision::kBF16 ? peaks.bf16_gops : peaks.f32_gops);
}

}  // namespace

TunedRun tune_with_progress(const Job& job, bool dry_run, RunChoice choice, TrainingData& data, std::FILE* out,
                            bool json) {
  const auto model = load_model(resolve_model(job.base));
  const PromptStyle style(job, model->vocabulary);
  RewriteRows rewrite;
  if (job.distill && job.distill->sequence())
    rewrite = [&](std::span<const Row> rows) { return teacher_answers(job, rows, out); };
  data = prepare_training(job, style, rewrite);
  const TrainConfig config = train_config(job, data.teacher.get());
  print_example(data.example, style.tokenizer(), out);
  if (data.rejected_example) {
    fmt::print(out, "and the answer that it is to prefer this one to:\n");
    print_example(*data.rejected_example, style.tokenizer(), out);
  }
  print_plan(data, plan_memory(*model, config, data.train), config, out);
  std::fflush(out);
  if (dry_run) return {};

  const Interrupt interrupt;
  std::atomic<bool> cancelled{false};
  TrainingLog log(out, json);
  TrainCallbacks callbacks;
  callbacks.cancelled = &cancelled;
  callbacks.progress = [&](const Progress& p) {
    log.progress(p);
    if (Interrupt::pressed()) cancelled = true;
  };
  callbacks.on_step = [&](const HistoryPoint& p) {
    if (Interrupt::pressed()) cancelled = true;
    log.step(p);
  };
  callbacks.warn = [&](const std::string& what) { log.warn(what); };
  choice.say = [&](const std::string& what) { log.say(what); };
  callbacks.peak_operations = peak_of(config);
  const TaskMetric task(model, style, data.dev_rows, job.train.metric_rows, job.max_new_tokens, job.eval_batch);
  if (job.train.metric_rows > 0 && task.rows() > 0 && !config.weights.train)
    callbacks.metric = [&](const Trainable& trained, int64_t step) -> std::optional<double> {
      if (step == 0) return std::nullopt;  // the untrained model rambles: `assess` asks it
      return task.score(to_adapter(*trained.lora, job.base)).exact.value;
    };
  const auto calibrate = [&](const LoraAdapter& adapter, std::shared_ptr<const Model> tuned) {
    return task.call_threshold(adapter, std::move(tuned));
  };
  TunedRun run = tune_job(job, *model, data, callbacks, calibrate, choice);
  log.clear();
  if (run.call_threshold)
    fmt::print(out, "calls where they are at least {:.0f} % likely, as {} dev rows say\n", 100 * *run.call_threshold,
               data.dev_rows.size());
  if (!run.result.cancelled)
    fmt::print(out, "trained {} steps, {} tokens in {} ({:.0f} tokens/s); kept step {}, the best by {}{}\n",
               run.result.steps,
               human_count(static_cast<double>(run.result.tokens)), human_seconds(run.result.seconds),
               static_cast<double>(run.result.tokens) / std::max(run.result.seconds, 1e-9), run.result.best_step,
               run.result.best_metric ? config.chosen_by : "dev loss",
               run.result.stopped_early
                   ? fmt::format("; stopped early, {} evaluations were not better", config.patience)
                   : "");
  return run;
}

int tune_command(const TuneOptions& options) {
  Job job = load_job(options.job);
  if (!options.model.empty()) job.base = options.model;
  TrainingData data;
  const TunedRun run = tune_with_progress(job, options.dry_run, {options.resume, options.fresh, {}}, data,
                                          options.json ? stderr : stdout, options.json);
  if (options.dry_run) return kOk;
  if (run.result.cancelled) {
    fmt::print(stderr, "stopped; the same command goes on with {}\n", run.folder.string());
    return kInterrupted;
  }
  if (!options.json) {
    fmt::print("{}: {}\n", run.trained() == run.adapter() ? "adapter" : "model", run.trained().string());
    return kOk;
  }
  Json out{{"event", "finished"},
           {run.trained() == run.adapter() ? "adapter" : "model", run.trained().string()},
           {"steps", run.result.steps},
           {"planned_steps", run.result.planned_steps},
           {"best_step", run.result.best_step},
           {"tokens", run.result.tokens},
           {"seconds", run.result.seconds},
           {"stopped_early", run.result.stopped_early}};
  if (run.result.best_dev_loss) out["dev_loss"] = *run.result.best_dev_loss;
  if (run.result.best_metric) out["metric"] = *run.result.best_metric;
  if (run.call_threshold) out["call_threshold"] = *run.call_threshold;
  fmt::print("{}\n", out.dump());
  return kOk;
}

}  // namespace thimble
