#include <fmt/core.h>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/memory.h"
#include "data/check.h"
#include "data/read.h"
#include "data/split.h"
#include "eval/assess.h"
#include "formats/pull.h"

namespace thimble {

void print_score_table(std::span<const SystemResult> systems) {
  fmt::print("{:<24} {:>16} {:>9} {:>8} {:>11} {:>12} {:>9}\n", "", "exact", "tools", "arg. F1", "false calls",
             "missed calls", "s a row");
  for (const SystemResult& s : systems) {
    const Score& c = s.score;
    const bool last = &s == &systems.back();
    fmt::print(
        "{}\n",
        styled(stdout, last ? Style::kBold : Style::kPlain,
               fmt::format("{:<24} {:>5.1f} % [{:>2.0f}-{:>3.0f}] {:>7.1f} % {:>8.3f} {:>9.1f} % {:>10.1f} % {:>9.2f}",
                           s.name, 100 * c.exact.value, 100 * c.exact.low, 100 * c.exact.high,
                           100 * c.name_accuracy.value, c.argument_f1.value, 100 * c.false_calls.value,
                           100 * c.missed_calls.value, s.seconds_per_row)));
  }
}

EvalSetup open_eval(const Job& job, ModelOptions options, bool base, const std::string& tools_in_prompt,
                    const std::filesystem::path& of_run) {
  std::filesystem::path whole;  // a model that the run trained
  if (!base && options.adapter.empty()) {
    const auto run = of_run.empty() ? newest_run(job.folder) : of_run;
    if (!run)
      throw Error(
          fmt::format("{}: has no finished run; train one with `thimble tune {}`, or say --base for the base "
                      "model alone",
                      job.folder.string(), job.folder.string()));
    whole = run_model(*run);
    if (whole.empty()) {
      options.adapter = (*run / "adapter").string();
    } else if (options.model.empty()) {
      options.model = whole.string();
    } else {
      throw Error(fmt::format("--model: {} trained a whole model and belongs to no other; leave the option out, or say "
                              "--base for {} alone",
                              run->string(), options.model));
    }
  }
  if (base) options.adapter.clear();
  if (options.model.empty()) options.model = job.base;
  Session session = open_session(options, job.eval_batch);
  if (!whole.empty()) session.manifest = parse_manifest(session.engine->model().model().manifest, whole.string());
  // A tuned model is asked as it was taught; its manifest knows.
  bool in_prompt = session.manifest ? session.manifest->tools_in_prompt : job.tools_in_prompt;
  if (!tools_in_prompt.empty()) in_prompt = tools_in_prompt == "yes";
  const auto system = session.manifest ? session.manifest->system : job.system;
  const bool plan = session.manifest && session.manifest->plan;
  PromptStyle style(session.engine->tokenizer(), session.engine->model().model().vocabulary, in_prompt, plan, system,
                    job.tools);
  return {std::move(session), std::move(style), whole.empty() ? options.adapter : whole.string()};
}

std::vector<Row> read_test_rows(const Job& job, const std::filesystem::path& file) {
  std::vector<Row> rows = read_rows(file);
  if (rows.empty()) throw Error(fmt::format("{}: holds no rows", file.string()));
  const CheckReport report = check_test_rows(rows, job.tools, file.string());
  for (size_t i = 0; i < std::min<size_t>(report.errors.size(), 5); ++i)
    fmt::print(stderr, "{} {}\n", styled(stderr, Style::kYellow, "warning:"), report.errors[i]);
  if (report.errors.size() > 5)
    fmt::print(stderr, "... and {} more; these rows can hardly be answered exactly\n", report.errors.size() - 5);
  return rows;
}

namespace {

// The rows that training sets aside with the settings as they stand in thimble.toml.
std::vector<Row> read_dev_rows(const Job& job) {
  std::vector<Row> rows = read_rows(job.train_file()), dev;
  for (const size_t i : split_rows(rows, job.train.dev_share, job.train.seed).dev)
    if (rows[i].label.value_or(true)) dev.push_back(std::move(rows[i]));
  return dev;
}

}  // namespace

int eval_command(const EvalOptions& options) {
  Job job = load_job(options.job);
  if (options.batch > 0) job.eval_batch = options.batch;
  std::vector<Row> rows =
      options.dev ? read_dev_rows(job) : read_test_rows(job, options.test.empty() ? job.test_file() : options.test);
  if (options.limit > 0 && rows.size() > static_cast<size_t>(options.limit))
    rows.resize(static_cast<size_t>(options.limit));
  EvalSetup setup = open_eval(job, options.model, options.base, options.tools_in_prompt);
  const std::vector<Row> shots =
      options.shots > 0 ? choose_shots(read_rows(job.train_file()), options.shots, job.train.seed) : std::vector<Row>();
  if (!options.prompts.empty()) {
    write_file(options.prompts, prompts_to_jsonl(setup.style, rows, shots));
    return kOk;
  }
  EvaluateOptions how;
  how.constrained = !options.unconstrained;
  how.adapter = setup.session.adapter;
  how.max_new_tokens = job.max_new_tokens;
  how.log_probs = !options.predictions.empty();
  how.call_threshold = options.call_threshold ? options.call_threshold : setup.session.call_threshold();
  how.shots = shots;

  ProgressLine line;
  const Evaluation e = evaluate(*setup.session.engine, setup.style, rows, how, line.fn());
  line.clear();
  if (!options.predictions.empty()) write_file(options.predictions, predictions_to_jsonl(e));
  if (options.json) {
    Json out = score_to_json(e.score);
    out["seconds"] = e.seconds;
    out["peak_memory_bytes"] = peak_memory();
    out["prompt_tokens"] = e.prompt_tokens;
    out["output_tokens"] = e.output_tokens;
    out["forced_tokens"] = e.forced_tokens;
    out["drafted_tokens"] = e.drafted_tokens;
    out["accepted_tokens"] = e.accepted_tokens;
    out["constrained"] = how.constrained;
    out["adapter"] = setup.adapter;
    fmt::print("{}\n", out.dump());
    return kOk;
  }
  const SystemResult result{setup.adapter.empty() ? "base" : "tuned",     "", e.score,
                            e.seconds / static_cast<double>(rows.size()), 0,  std::nullopt};
  fmt::print("{} rows in {} ({} tokens read, {} written)\n", rows.size(), human_seconds(e.seconds),
             human_count(static_cast<double>(e.prompt_tokens)), human_count(static_cast<double>(e.output_tokens)));
  print_score_table(std::span(&result, 1));
  for (size_t i = 0; i < kFailures; ++i)
    if (e.score.failures[i] > 0)
      fmt::print("  {:<20} {:>4}\n", failure_name(static_cast<Failure>(i)), e.score.failures[i]);
  return kOk;
}

}  // namespace thimble
