#include <fmt/core.h>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/terminal.h"
#include "core/atomic_file.h"
#include "core/memory.h"
#include "data/read.h"

namespace thimble {

int make_command(const MakeOptions& options) {
  Job job = load_job(options.job);
  if (!options.model.empty()) job.base = options.model;
  const auto heading = [&](const char* text) {
    fmt::print(options.json ? stderr : stdout, "{}\n", styled(options.json ? stderr : stdout, Style::kCyan, text));
    std::fflush(stdout);
  };

  heading("1/4 assess: is the job worth it?");
  const Assessment assessment = assess_with_progress(job, options.json);

  heading("2/4 tune");
  TrainingData data;
  const TunedRun run = tune_with_progress(job, false, {options.resume, options.fresh, {}}, data,
                                          options.json ? stderr : stdout);
  if (run.result.cancelled) {
    fmt::print(stderr, "stopped; the same command goes on with {}\n", run.folder.string());
    return kInterrupted;
  }

  heading("3/4 eval: the test set, which nothing was chosen by");
  EvalSetup setup = open_eval(job, {}, false, "", run.folder);
  const std::vector<Row> rows = read_test_rows(job, job.test_file());
  EvaluateOptions how;
  how.adapter = setup.session.adapter;
  how.max_new_tokens = job.max_new_tokens;
  how.log_probs = true;
  how.call_threshold = setup.session.call_threshold();
  ProgressLine line;
  const Evaluation e = evaluate(*setup.session.engine, setup.style, rows, how, line.fn());
  line.clear();
  write_file(run.folder / "predictions.jsonl", predictions_to_jsonl(e));
  const auto count = static_cast<double>(rows.size());
  const SystemResult tuned{
      "tuned",
      job.tools_in_prompt ? "tools in the prompt, constrained" : "tools in the weights, constrained",
      e.score,
      e.seconds / count,
      static_cast<double>(e.prompt_tokens + e.output_tokens) / count,
      std::nullopt};

  ReportData report;
  report.job = &job;
  report.base_name = job.base;
  report.systems = assessment.systems;
  report.systems.push_back(tuned);
  report.bars = check_bars(job.bars, e.score);
  report.advice = assessment.advice;
  report.tuned = &e;
  report.card = &data.card;
  report.history = run.result.history;
  report.best_step = run.result.best_step;
  report.train_seconds = run.result.seconds;
  report.assess_seconds = assessment.seconds;
  report.eval_seconds = e.seconds;
  report.peak_memory_bytes = peak_memory();
  report.adapter_path = run.trained().string();
  report.chat_command = fmt::format("thimble chat {}", options.job.string());
  const auto report_path = run.folder / "report.html";
  write_file(report_path, render_report(report));
  const bool verdict = go(report.bars);

  if (options.json) {
    Json out = score_to_json(e.score);
    out["go"] = verdict;
    out["report"] = report_path.string();
    out["adapter"] = run.trained().string();
    out["train_seconds"] = run.result.seconds;
    out["assess_seconds"] = assessment.seconds;
    out["eval_seconds"] = e.seconds;
    out["peak_memory_bytes"] = peak_memory();
    fmt::print("{}\n", out.dump());
    return verdict ? kOk : kNoGo;
  }
  heading("\n4/4 before and after");
  print_score_table(report.systems);
  fmt::print("\n");
  for (const BarResult& b : report.bars)
    fmt::print("  {} {:<14} {:>5.1f} %  ({} {:.1f} %)\n",
               b.cleared ? styled(stdout, Style::kGreen, "cleared") : styled(stdout, Style::kRed, "missed "), b.name,
               100 * b.value, b.at_least ? "at least" : "at most", 100 * b.bar);
  fmt::print("\n{}\n", verdict ? styled(stdout, Style::kGreen, "GO") : styled(stdout, Style::kRed, "NO-GO"));
  fmt::print("report   {}\n{:<8} {}\nchat     build/thimble chat {}\n", report_path.string(),
             run.trained() == run.adapter() ? "adapter" : "model", run.trained().string(), options.job.string());
  return verdict ? kOk : kNoGo;
}

}  // namespace thimble
