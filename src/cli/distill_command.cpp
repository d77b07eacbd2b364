#include <fmt/core.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/terminal.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "eval/evaluate.h"
#include "formats/pull.h"
#include "train/distill.h"

namespace thimble {

std::vector<std::optional<Row>> teacher_answers(const Job& job, std::span<const Row> rows, std::FILE* out) {
  ModelOptions model;
  model.model = job.distill->teacher;
  if (!job.distill->adapter.empty()) model.adapter = (job.folder / job.distill->adapter).string();
  // Without an adapter nothing says how the teacher was taught: it is shown the tools and writes no plan.
  EvalSetup setup = open_eval(job, model, model.adapter.empty(), model.adapter.empty() ? "yes" : "");
  EvaluateOptions how;
  how.adapter = setup.session.adapter;
  how.max_new_tokens = job.max_new_tokens;
  how.call_threshold = setup.session.call_threshold();
  ProgressLine line;
  const Evaluation answers = evaluate(*setup.session.engine, setup.style, rows, how, line.fn());
  line.clear();
  size_t kept = 0, as_gold = 0;
  std::vector<std::optional<Row>> result;
  for (size_t i = 0; i < rows.size(); ++i) {
    const AnsweredRow& answer = answers.rows[i];
    std::optional<Row>& row = result.emplace_back();
    const bool empty = answer.parsed.calls.empty() && answer.parsed.text.empty();
    const bool planless =
        job.plan && answer.parsed.plan.empty() && answer.parsed.calls.empty() && rows[i].intent.empty();
    if (answer.cut || !answer.parsed.parseable() || empty || planless) continue;
    row = rows[i];
    row->calls = answer.parsed.calls;
    row->answer = row->calls.empty() ? answer.parsed.text : "";
    if (job.plan) row->plan = answer.parsed.plan;
    ++kept;
    as_gold += answer.score.exact ? 1 : 0;
  }
  fmt::print(out, "the teacher answered {} rows in {}: {} are learned, {} of them as the rows have it\n", rows.size(),
             human_seconds(answers.seconds), kept, as_gold);
  return result;
}

int distill_command(const DistillOptions& options) {
  const Job job = load_job(options.job);
  if (!job.distill || job.distill->teacher.empty() || job.distill->sequence())
    throw Error(fmt::format("{}: thimble.toml needs [distill] with a teacher, and a kind that learns from its "
                            "probabilities",
                            options.job.string()));
  const auto file = job.folder / "distill.jsonl";
  if (std::filesystem::exists(file) && !options.force)
    throw Error(fmt::format("{}: is there already; move it away, or replace it with --force", file.string()));
  Job asked = job;  // the teacher itself, also where thimble.toml names the file already
  asked.distill->from.clear();
  const auto model = load_model(resolve_model(job.base));
  const PromptStyle style(job, model->vocabulary);
  TrainingData data = prepare_training(asked, style);
  std::vector<TrainRow> rows = std::move(data.train);
  rows.insert(rows.end(), data.dev.begin(), data.dev.end());
  std::sort(rows.begin(), rows.end(), [](const TrainRow& a, const TrainRow& b) { return a.row < b.row; });
  const TrainConfig config = train_config(asked, data.teacher.get());
  ProgressLine line;
  const auto teacher = likeliest_tokens(*data.teacher->model, data.teacher->adapter.get(), rows, options.top,
                                        config.precision, config.token_budget, line.fn());
  line.clear();
  write_file(file, teacher_to_jsonl(rows, teacher));
  fmt::print("{} rows, the {} likeliest tokens at each place: {}\n", rows.size(), options.top, file.string());
  fmt::print("learn from it with [distill] from = \"distill.jsonl\" in thimble.toml\n");
  return kOk;
}

}  // namespace thimble
