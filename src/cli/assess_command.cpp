#include <fmt/core.h>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/terminal.h"
#include "core/error.h"
#include "data/read.h"

namespace thimble {

Assessment assess_with_progress(const Job& job, bool quiet) {
  EvalSetup setup = open_eval(job, {}, true, "yes");
  const std::vector<Row> test = read_test_rows(job, job.test_file());
  const std::vector<Row> train = read_rows(job.train_file());
  ProgressLine line;
  Assessment a = assess(*setup.session.engine, job, test, train, line.fn());
  line.clear();
  if (quiet) return a;
  fmt::print("{} rows of the test set, asked without any training:\n", a.sample);
  print_score_table(a.systems);
  fmt::print("\n");
  for (size_t i = 0; i < a.advice.size(); ++i)
    fmt::print("{}\n", i == 0 ? styled(stdout, Style::kBold, a.advice[i]) : "  " + a.advice[i]);
  fmt::print("\n");
  std::fflush(stdout);
  return a;
}

int assess_command(const AssessOptions& options) {
  Job job = load_job(options.job);
  if (!options.model.empty()) job.base = options.model;
  const Assessment a = assess_with_progress(job, options.json);
  if (options.json) {
    Json out{{"sample", a.sample}, {"worth_it", a.worth_it}, {"seconds", a.seconds}, {"advice", a.advice}};
    for (const SystemResult& s : a.systems) {
      Json line = score_to_json(s.score);
      line["name"] = s.name;
      line["how"] = s.how;
      line["seconds_per_row"] = s.seconds_per_row;
      line["tokens_per_row"] = s.tokens_per_row;
      if (s.cost_per_1000) line["cost_per_1000"] = *s.cost_per_1000;
      out["systems"].push_back(std::move(line));
    }
    fmt::print("{}\n", out.dump());
  }
  return kOk;
}

}  // namespace thimble
