#include <fmt/core.h>

#include <map>

#include "cli/commands.h"
#include "cli/job_steps.h"
#include "cli/terminal.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "data/check.h"
#include "data/read.h"
#include "data/split.h"
#include "eval/preferences.h"

namespace thimble {
namespace {

// The lines of a file by their number, from 1.
std::map<int, std::string> lines_of(const std::filesystem::path& file) {
  std::map<int, std::string> lines;
  const std::string text = read_file(file);
  int number = 1;
  for (size_t at = 0; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines[number] = text.substr(at, end - at);
    at = end + 1;
  }
  return lines;
}

}  // namespace

int preferences_command(const PreferencesOptions& options) {
  const Job job = load_job(options.job);
  const auto out = job.folder / "preferences.jsonl";
  if (std::filesystem::exists(out) && !options.force)
    throw Error(fmt::format("{}: is there already; move it away, or replace it with --force", out.string()));
  // The part that training learns from: the dev part stays unseen, and test.jsonl is not opened at all.
  const auto file = job.train_file();
  const std::vector<Row> all = read_rows(file);
  check_rows(all, job.tools, file.string()).throw_if_errors();
  std::vector<Row> rows;
  for (const size_t i : split_rows(all, job.train.dev_share, job.train.seed).train)
    if (all[i].label.value_or(true) && !all[i].rejected) rows.push_back(all[i]);
  if (options.limit > 0 && rows.size() > static_cast<size_t>(options.limit))
    rows.resize(static_cast<size_t>(options.limit));

  EvalSetup setup = open_eval(job, options.model, options.base, "");
  PreferenceOptions how;
  how.samples = options.samples;
  how.keep = options.keep;
  how.temperature = options.temperature;
  how.adapter = setup.session.adapter;
  how.max_new_tokens = job.max_new_tokens;
  how.seed = job.train.seed;
  ProgressLine line;
  const FoundPreferences found = find_preferences(*setup.session.engine, setup.style, rows, how, line.fn());
  line.clear();
  fmt::print("{} rows of {} asked {} times: {} of {} answers wrong, in {} rows\n", rows.size(), file.filename().string(),
             options.samples, found.answers_wrong, found.answers, found.rows_wrong);
  if (found.wrong.empty()) {
    fmt::print("nothing to learn from; a higher --temperature or more --samples find rarer mistakes\n");
    return kOk;
  }
  const auto lines = lines_of(file);
  std::string text;
  for (const WrongAnswer& wrong : found.wrong) {
    const Row& row = rows[wrong.row];
    Json object = parse_json(lines.at(row.number), fmt::format("{}: row {}", file.string(), row.number));
    object.erase("label");  // true: the rejected answer says more
    object["rejected"] = rejected_to_json(wrong.answer);
    text += object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  write_file(out, text);
  fmt::print("{} pairs: {}\ntrain on them with [preference] file = \"preferences.jsonl\" in thimble.toml\n",
             found.wrong.size(), out.string());
  return kOk;
}

}  // namespace thimble
