#include <fmt/core.h>

#include <atomic>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "formats/pull.h"

namespace thimble {
namespace {

// One row with what the model learns to write in bold green; brackets where colours are off, so that a log shows it too.
void print_example(const EncodedRow& row, const Tokenizer& tokenizer) {
  const bool colours = styled(stdout, Style::kGreen, "x") != "x";
  fmt::print("row {} as the model sees it; what it learns is {}:\n", row.number,
             colours ? styled(stdout, Style::kGreen, "green") : "between [[ and ]]");
  for (size_t i = 0; i < row.tokens.size();) {
    size_t end = i;
    while (end < row.tokens.size() && row.trained[end] == row.trained[i]) ++end;
    const std::string text = tokenizer.decode(std::span(row.tokens).subspan(i, end - i));
    if (row.trained[i] == 0) fmt::print("{}", styled(stdout, Style::kDim, text));
    else if (colours) fmt::print("{}", styled(stdout, Style::kGreen, text));
    else fmt::print("[[{}]]", text);
    i = end;
  }
  fmt::print("\n");
}

void print_plan(const TrainingData& data, const MemoryPlan& plan, const TrainConfig& config) {
  const DataCard& c = data.card;
  fmt::print("\n{} rows to train on, {} set aside as the dev part{}\n", human_count(static_cast<double>(c.train_rows)),
             c.dev_rows, c.dropped_rows > 0 ? fmt::format(", {} dropped", c.dropped_rows) : "");
  static constexpr const char* kNames[] = {"system", "user", "assistant", "tool"};
  fmt::print("tokens:");
  for (size_t i = 0; i < kRoles; ++i)
    if (c.tokens[i] > 0) fmt::print(" {} {}", kNames[i], human_count(static_cast<double>(c.tokens[i])));
  fmt::print("; learned {}; longest row {}\n", human_count(static_cast<double>(c.trained_tokens)), c.longest);
  for (const std::string& note : c.notes) fmt::print("note: {}\n", note);
  const auto mb = [](size_t bytes) { return human_bytes(static_cast<double>(bytes)); };
  fmt::print("memory plan: {} (weights {}, adapter {}, optimizer {}, activations {}, logits {}, other {}) of {} "
             "available\n",
             mb(plan.total()), mb(plan.weights), mb(plan.adapter), mb(plan.optimizer), mb(plan.activations),
             mb(plan.logits), mb(plan.other), mb(plan.available));
  fmt::print("{} optimizer steps of {} rows, learning rate {:g}, {} on {}\n\n",
             planned_steps(config, data.train.size()), config.batch_rows, config.learning_rate,
             config.precision == GemmPrecision::kBF16 ? "bf16" : "f32",
             fmt::format("LoRA rank {}", config.lora.rank));
}

}  // namespace

TunedRun tune_with_progress(const Job& job, const std::string& base, bool dry_run, const std::filesystem::path& resume,
                            TrainingData& data) {
  const auto model = load_model(resolve_model(base));
  const PromptStyle style(Tokenizer::from(model->vocabulary), model->vocabulary, job.tools_in_prompt, job.system,
                          job.tools);
  data = prepare_training(job, style);
  const TrainConfig config = train_config(job);
  print_example(data.example, style.tokenizer());
  print_plan(data, plan_memory(*model, config, data.train), config);
  std::fflush(stdout);
  if (dry_run) return {};

  const Interrupt interrupt;
  std::atomic<bool> cancelled{false};
  ProgressLine line;
  TrainCallbacks callbacks;
  callbacks.cancelled = &cancelled;
  callbacks.progress = [&](const Progress& p) {
    line.show(p);
    if (Interrupt::pressed()) cancelled = true;
  };
  callbacks.on_step = [&](const HistoryPoint& p) {
    if (Interrupt::pressed()) cancelled = true;
    if (!p.dev_loss) return;
    line.clear();
    fmt::print("step {:>5}  dev loss {:.4f}", p.step, *p.dev_loss);
    if (p.step > 0) fmt::print("  training loss {:.4f}  {:.0f} tokens/s  {}", p.loss, p.tokens_per_second, human_seconds(p.seconds));
    fmt::print("\n");
    std::fflush(stdout);
  };
  TunedRun run = tune_job(job, *model, style, data, callbacks, resume);
  line.clear();
  if (!run.result.cancelled)
    fmt::print("trained {} steps, {} tokens in {} ({:.0f} tokens/s); kept step {}\n", run.result.steps,
               human_count(static_cast<double>(run.result.tokens)), human_seconds(run.result.seconds),
               static_cast<double>(run.result.tokens) / std::max(run.result.seconds, 1e-9), run.result.best_step);
  return run;
}

int tune_command(const TuneOptions& options) {
  const Job job = load_job(options.job);
  TrainingData data;
  const TunedRun run = tune_with_progress(job, options.model.empty() ? job.base : options.model, options.dry_run,
                                          options.resume, data);
  if (options.dry_run) return kOk;
  if (run.result.cancelled) {
    fmt::print(stderr, "stopped; go on with `thimble tune {} --resume {}`\n", options.job.string(), run.folder.string());
    return kInterrupted;
  }
  fmt::print("adapter: {}\n", run.adapter().string());
  return kOk;
}

}  // namespace thimble
