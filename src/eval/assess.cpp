#include "eval/assess.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "core/clock.h"
#include "core/random.h"
#include "route/remote_model.h"

namespace thimble {
namespace {

std::string percent(const Rate& r) {
  return fmt::format("{:.0f} % ({:.0f} to {:.0f} %)", 100 * r.value, 100 * r.low, 100 * r.high);
}

SystemResult run_base(Engine& engine, const Job& job, std::span<const Row> sample, std::vector<Row> shots,
                      const ProgressFn& progress) {
  const PromptStyle style(engine.tokenizer(), engine.model().model().vocabulary, true, false, job.system, job.tools);
  EvaluateOptions options;
  options.max_new_tokens = job.max_new_tokens;
  options.shots = std::move(shots);
  const std::string name = options.shots.empty() ? "base, zero-shot" : "base, few-shot";
  const Evaluation e = evaluate(engine, style, sample, options, [&](Progress p) {
    if (!progress) return;
    p.stage = name;
    progress(p);
  });
  const auto rows = static_cast<double>(sample.size());
  return {name,
          options.shots.empty() ? "tools in the prompt, constrained"
                                : fmt::format("tools and {} examples in the prompt, constrained", options.shots.size()),
          e.score,
          e.seconds / rows,
          static_cast<double>(e.prompt_tokens + e.output_tokens) / rows,
          std::nullopt};
}

SystemResult run_large(const Job& job, std::span<const Row> sample, const ProgressFn& progress) {
  const LargeSettings& l = *job.large;
  const RemoteModel remote{l.url, l.model, l.api_key_env, l.input_price, l.output_price};
  std::vector<RowScore> scores;
  double seconds = 0, cost = 0, tokens = 0;
  for (const Row& row : sample) {
    const std::vector<Tool>& tools = row.tools ? *row.tools : job.tools;
    RemoteAnswer said = ask(remote, job.system.value_or(""), row.turns, tools, job.max_new_tokens);
    // Endpoints that know no tool calls may write them as text.
    ParsedAnswer parsed = said.calls.empty() ? parse_answer(said.text) : ParsedAnswer{};
    if (!said.calls.empty()) parsed.calls = std::move(said.calls);
    parsed.problems.insert(parsed.problems.end(), said.problems.begin(), said.problems.end());
    scores.push_back(score_row(row.calls, parsed, tools));
    seconds += said.seconds;
    cost += said.cost;
    tokens += static_cast<double>(said.input_tokens + said.output_tokens);
    if (progress)
      progress({"large model", static_cast<double>(scores.size()), static_cast<double>(sample.size()), "rows", ""});
  }
  const auto rows = static_cast<double>(sample.size());
  SystemResult out{"large: " + l.model, "tools in the request, one row at a time",
                   summarize(scores),   seconds / rows,
                   tokens / rows,       std::nullopt};
  if (l.input_price > 0 || l.output_price > 0) out.cost_per_1000 = 1000 * cost / rows;
  return out;
}

void advise(const Job& job, std::span<const Row> train, Assessment& a) {
  const SystemResult* best = nullptr;
  const SystemResult* large = nullptr;
  for (const SystemResult& s : a.systems) {
    if (s.name.starts_with("large"))
      large = &s;
    else if (best == nullptr || s.score.exact.value > best->score.exact.value)
      best = &s;
  }
  const std::vector<BarResult> base_bars = check_bars(job.bars, best->score);
  a.worth_it = base_bars.empty() ? best->score.exact.value < 0.95 : !go(base_bars);
  std::vector<std::string> reasons;
  reasons.push_back(
      fmt::format("The base model by itself ({}) answers {} exactly.", best->how, percent(best->score.exact)));
  for (const BarResult& b : base_bars)
    if (!b.cleared)
      reasons.push_back(fmt::format("It misses the bar for {}: {:.1f} % where {} {:.1f} % is asked.", b.name,
                                    100 * b.value, b.at_least ? "at least" : "at most", 100 * b.bar));
  if (large != nullptr) {
    reasons.push_back(fmt::format(
        "The large model answers {} exactly, in {:.2f} s a row{}.", percent(large->score.exact), large->seconds_per_row,
        large->cost_per_1000 ? fmt::format(", at {:.2f} for 1,000 rows", *large->cost_per_1000) : ""));
    if (!check_bars(job.bars, large->score).empty() && !go(check_bars(job.bars, large->score)))
      reasons.push_back("Even the large model misses the bars: look at the labels and at the bars before tuning.");
  }
  std::map<std::string, size_t> per_tool;
  for (const Row& row : train)
    for (const Call& call : row.calls) ++per_tool[call.name];
  std::string thin;
  for (const Tool& tool : job.tools)
    if (const size_t n = per_tool[tool.name]; n < 20)
      thin += fmt::format("{}{} ({})", thin.empty() ? "" : ", ", tool.name, n);
  reasons.push_back(fmt::format("There are {} training rows for {} tools.", train.size(), job.tools.size()));
  if (!thin.empty()) reasons.push_back(fmt::format("Write more rows for tools with fewer than 20 calls: {}.", thin));
  const bool silent = std::all_of(train.begin(), train.end(), [](const Row& r) { return !r.calls.empty(); });
  if (silent)
    reasons.push_back("No training row goes without a call: the tuned model will call a tool whatever is said.");
  if (!job.tools_in_prompt)
    reasons.push_back(
        fmt::format("With the tools learned into the weights a prompt shrinks from about {:.0f} tokens to the "
                    "request alone.",
                    a.systems.front().tokens_per_row));
  a.advice.push_back(a.worth_it
                         ? "Worth tuning: what can be had without it does not reach what the job asks."
                         : "Tuning is hardly worth it: the base model already reaches what the job asks; put the "
                           "tools and examples into its prompt.");
  a.advice.insert(a.advice.end(), reasons.begin(), reasons.end());
}

}  // namespace

std::vector<Row> sample_rows(std::span<const Row> rows, int count, uint64_t seed) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Random(seed).shuffle(order);
  order.resize(std::min(order.size(), static_cast<size_t>(count)));
  std::sort(order.begin(), order.end());
  std::vector<Row> out;
  for (const size_t i : order) out.push_back(rows[i]);
  return out;
}

std::vector<Row> choose_shots(std::span<const Row> train, int count, uint64_t seed) {
  std::vector<size_t> order(train.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Random(seed).shuffle(order);
  // Rows with something new first: a kind, a number of calls, or a tool that no earlier shot shows.
  std::vector<Row> out;
  std::map<std::string, int> seen;
  std::vector<size_t> rest;
  for (const size_t i : order) {
    const Row& row = train[i];
    if (!row.label.value_or(true)) continue;  // its answer is wrong
    const std::string key = row.calls.empty() ? "kind:" + row.kind : "tool:" + row.calls.front().name;
    if (static_cast<int>(out.size()) < count && seen[key]++ == 0)
      out.push_back(row);
    else
      rest.push_back(i);
  }
  for (const size_t i : rest)
    if (static_cast<int>(out.size()) < count) out.push_back(train[i]);
  // Calls and no calls take turns as they come, not in blocks that the model would go on with.
  Random(seed + 1).shuffle(out);
  return out;
}

Assessment assess(Engine& base, const Job& job, std::span<const Row> test, std::span<const Row> train,
                  const ProgressFn& progress) {
  const auto start = Clock::now();
  Assessment out;
  const std::vector<Row> sample = sample_rows(test, job.assess_sample, job.train.seed);
  out.sample = sample.size();
  out.systems.push_back(run_base(base, job, sample, {}, progress));
  if (job.assess_shots > 0 && !train.empty())
    out.systems.push_back(run_base(base, job, sample, choose_shots(train, job.assess_shots, job.train.seed), progress));
  if (job.large) out.systems.push_back(run_large(job, sample, progress));
  advise(job, train, out);
  out.seconds = seconds_since(start);
  return out;
}

}  // namespace thimble
