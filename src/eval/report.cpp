#include "eval/report.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "calls/hermes.h"
#include "eval/svg.h"

namespace thimble {
namespace {

constexpr const char* kStyle = R"css(
:root{--ink:#1c2430;--soft:#5b6675;--line:#dfe4ea;--page:#fbfbfa;--card:#fff;--a:#0b6e8f;--b:#c2571a;--ok:#1c7c43;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b3;--line:#323b47;--page:#14181d;--card:#1b2128;--a:#4db6d6;--b:#f0a067;--ok:#62c88a;--bad:#f28b82}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 system-ui,sans-serif}
main{max-width:980px;margin:0 auto;padding:28px 20px 60px}h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:34px 0 10px}
p{margin:6px 0}.soft{color:var(--soft)}.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;overflow-x:auto}
.verdict{display:inline-block;font-weight:700;font-size:20px;padding:4px 16px;border-radius:8px;color:#fff;margin:12px 0}
.go{background:var(--ok)}.nogo{background:var(--bad)}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:600;font-size:13px}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}tr.us td{font-weight:600}td:first-child{min-width:130px}tr.us .soft{font-weight:400}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{white-space:pre-wrap;margin:4px 0}
.yes{color:var(--ok)}.no{color:var(--bad)}details{margin:8px 0}summary{cursor:pointer}
svg{width:100%;height:auto;display:block}svg.mark{width:96px;height:12px;margin-left:auto}.grid{stroke:var(--line)}.tick{fill:var(--soft);font:12px system-ui}
.curve{fill:none;stroke-width:2}.s1{stroke:var(--a)}.s2{stroke:var(--b)}circle.s2{fill:var(--b);stroke:none}.whisker{stroke:var(--a);stroke-width:4;opacity:.45}
.dot{fill:var(--a)}.bar{stroke:var(--b);stroke-width:2}.stack{height:12px;background:var(--a);border-radius:3px;min-width:2px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:14px}
)css";

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string cell(const Rate& rate, double bar = -1) {
  return fmt::format("<td class=\"n\" title=\"95 % interval {:.1f} to {:.1f} %\">{}<br>{}</td>", 100 * rate.low,
                     100 * rate.high, percent(rate.value), interval_mark(rate.value, rate.low, rate.high, bar));
}

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  if (whole < 60) return fmt::format("{} s", whole);
  return fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

std::string calls_text(std::span<const Call> calls) {
  if (calls.empty()) return "<span class=\"soft\">no call</span>";
  std::string out;
  for (const Call& call : calls)
    out += fmt::format("<pre>{} {}</pre>", escape_html(call.name), escape_html(write_json(call.arguments)));
  return out;
}

std::string systems_table(const ReportData& d) {
  const bool priced = std::any_of(d.systems.begin(), d.systems.end(),
                                  [](const SystemResult& s) { return s.cost_per_1000.has_value(); });
  std::string out =
      "<div class=\"card\"><table><tr><th>model</th><th class=\"n\">exact answers</th><th class=\"n\">right tools</th>"
      "<th class=\"n\">argument F1</th><th class=\"n\">false calls</th><th class=\"n\">missed calls</th>"
      "<th class=\"n\">time a row</th>";
  if (priced) out += "<th class=\"n\">cost of 1,000</th>";
  out += "</tr>";
  for (size_t i = 0; i < d.systems.size(); ++i) {
    const SystemResult& s = d.systems[i];
    const auto bar = [](const std::optional<double>& b) { return b.value_or(-1); };
    const bool last = i + 1 == d.systems.size();
    out += fmt::format("<tr{}><td>{}<br><span class=\"soft\">{}; {} rows</span></td>", last ? " class=\"us\"" : "",
                       escape_html(s.name), escape_html(s.how), s.score.rows);
    out += cell(s.score.exact, bar(d.job->bars.exact)) + cell(s.score.name_accuracy, bar(d.job->bars.name_accuracy)) +
           cell(s.score.argument_f1, bar(d.job->bars.argument_f1)) +
           cell(s.score.false_calls, bar(d.job->bars.false_calls)) +
           cell(s.score.missed_calls, bar(d.job->bars.missed_calls));
    out += fmt::format("<td class=\"n\">{:.2f} s</td>", s.seconds_per_row);
    if (priced)
      out += fmt::format("<td class=\"n\">{}</td>", s.cost_per_1000 ? fmt::format("{:.2f}", *s.cost_per_1000) : "–");
    out += "</tr>";
  }
  return out +
         "</table><p class=\"soft\">Dots are the measured shares, bands their 95 % intervals (Wilson; bootstrap for "
         "F1), the upright line is the bar of thimble.toml.</p></div>";
}

std::string failures(const ReportData& d) {
  if (d.tuned == nullptr) return "";
  std::map<Failure, std::vector<const AnsweredRow*>> modes;
  for (const AnsweredRow& row : d.tuned->rows)
    if (row.score.failure) modes[*row.score.failure].push_back(&row);
  std::vector<std::pair<Failure, std::vector<const AnsweredRow*>>> sorted(modes.begin(), modes.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.size() > b.second.size(); });
  std::string out = "<h2>What still goes wrong</h2>";
  if (sorted.empty()) return out + "<p>No row failed.</p>";
  for (const auto& [mode, rows] : sorted) {
    const double share = static_cast<double>(rows.size()) / static_cast<double>(d.tuned->rows.size());
    out += fmt::format(
        "<details><summary><b>{}</b>: {} rows ({})<div class=\"stack\" style=\"width:{:.1f}%\"></div>"
        "</summary><table><tr><th>message</th><th>right</th><th>said</th></tr>",
        failure_name(mode), rows.size(), percent(share), 100 * share);
    for (size_t i = 0; i < std::min<size_t>(rows.size(), 5); ++i) {
      const AnsweredRow& row = *rows[i];
      out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}", escape_html(row.row->query()), calls_text(row.row->calls),
                         row.parsed.calls.empty() ? fmt::format("<pre>{}</pre>", escape_html(row.output))
                                                  : calls_text(row.parsed.calls));
      for (const std::string& detail : row.score.details)
        out += fmt::format("<div class=\"soft\">{}</div>", escape_html(detail));
      out += "</td></tr>";
    }
    out += "</table></details>";
  }
  return out;
}

std::string curves(const ReportData& d) {
  if (d.history.empty()) return "";
  Series train{"training loss (smoothed)", "s1", {}, false}, dev{"loss on the dev part", "s2", {}, true};
  Series exact{"exact answers on the dev part, %", "s2", {}, true}, gradient{"gradient's norm", "s1", {}, false};
  double share = 0, shared = 0;
  for (const HistoryPoint& p : d.history) {
    const auto step = static_cast<double>(p.step);
    if (p.step > 0) {
      train.points.emplace_back(step, p.smoothed_loss);
      gradient.points.emplace_back(step, p.gradient_norm);
    }
    if (p.dev_loss) dev.points.emplace_back(step, *p.dev_loss);
    if (p.metric) exact.points.emplace_back(step, 100 * *p.metric);
    if (p.peak_share) share += *p.peak_share, ++shared;
  }
  std::string out = "<h2>Training</h2><div class=\"card\">" + line_chart({train, dev}, "optimizer step", "loss");
  if (!exact.points.empty()) out += line_chart({exact}, "optimizer step", "exact answers, %");
  out += fmt::format(
      "<details><summary>The gradient's norm, before it is clipped</summary>{}</details><p class=\"soft\">The checkpoint "
      "of step {} was kept: the best on the dev part, which training never sees. The test set chose nothing.",
      line_chart({gradient}, "optimizer step", "norm"), d.best_step);
  if (shared > 0)
    out += fmt::format(" Training did {:.0f} % of the operations that this machine can do, useful ones alone.",
                       100 * share / shared);
  return out + "</p></div>";
}

std::string data_card(const ReportData& d) {
  if (d.card == nullptr) return "";
  const DataCard& c = *d.card;
  std::string out = "<h2>Data card</h2><div class=\"grid2\"><div class=\"card\"><table>";
  const auto line = [&](std::string_view key, const std::string& value) {
    out += fmt::format("<tr><td>{}</td><td class=\"n\">{}</td></tr>", key, value);
  };
  line("objective", escape_html(c.objective));
  line("rows to train on", fmt::format("{}", c.train_rows));
  for (const auto& [name, count] : c.mixed)
    line(fmt::format("of them of {}", escape_html(name)), fmt::format("{}", count));
  line("rows of the dev part", fmt::format("{}", c.dev_rows));
  line("rows dropped", fmt::format("{}", c.dropped_rows));
  static constexpr const char* kRoleNames[] = {"system", "user", "assistant", "tool"};
  for (size_t i = 0; i < kRoles; ++i)
    if (c.tokens[i] > 0) line(fmt::format("{} tokens", kRoleNames[i]), fmt::format("{}", c.tokens[i]));
  line("tokens that are learned", fmt::format("{}", c.trained_tokens));
  line("longest row", fmt::format("{} tokens", c.longest));
  for (const auto& [kind, count] : c.kinds) line(fmt::format("kind: {}", escape_html(kind)), fmt::format("{}", count));
  out += "</table></div><div class=\"card\"><table><tr><th>tool</th><th class=\"n\">gold calls</th></tr>";
  for (const auto& [tool, count] : c.tools) line(escape_html(tool), fmt::format("{}", count));
  out += "</table></div></div>";
  for (const std::string& note : c.notes) out += fmt::format("<p class=\"soft\">{}</p>", escape_html(note));
  return out;
}

std::string settings(const ReportData& d) {
  const TrainSettings& t = d.job->train;
  std::string out = "<h2>Time, memory and settings</h2><div class=\"card\"><table>";
  const auto line = [&](const char* key, const std::string& value) {
    out += fmt::format("<tr><td>{}</td><td>{}</td></tr>", key, escape_html(value));
  };
  if (d.assess_seconds > 0) line("assessment", duration(d.assess_seconds));
  if (d.train_seconds > 0) line("training", duration(d.train_seconds));
  line("evaluation", duration(d.eval_seconds));
  line("most memory", fmt::format("{:.2f} GB", static_cast<double>(d.peak_memory_bytes) * 1e-9));
  line("base model", d.base_name);
  line("tools",
       d.job->tools_in_prompt ? "in every prompt" : "learned into the weights; the prompt is the request alone");
  line("method", fmt::format("LoRA rank {}, alpha {}, learning rate {}, {} decay, {} epochs, {} rows a step, seed {}",
                             t.rank, t.alpha, t.learning_rate, t.schedule, t.epochs, t.batch_rows, t.seed));
  line("adapter", d.adapter_path);
  line("talk to it", d.chat_command);
  return out + "</table></div>";
}

}  // namespace

std::vector<BarResult> check_bars(const Bars& bars, const Score& score) {
  std::vector<BarResult> out;
  const auto add = [&](const char* name, const std::optional<double>& bar, const Rate& rate, bool at_least) {
    if (bar) out.push_back({name, rate.value, *bar, at_least, at_least ? rate.value >= *bar : rate.value <= *bar});
  };
  add("exact answers", bars.exact, score.exact, true);
  add("right tools", bars.name_accuracy, score.name_accuracy, true);
  add("argument F1", bars.argument_f1, score.argument_f1, true);
  add("false calls", bars.false_calls, score.false_calls, false);
  add("missed calls", bars.missed_calls, score.missed_calls, false);
  return out;
}

std::string render_report(const ReportData& d) {
  const bool cleared = go(d.bars);
  std::string out = fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>{0}: report</title><style>{1}</style></head><body><main>"
      "<h1>{0}</h1><p class=\"soft\">{2}</p><div class=\"verdict {3}\">{4}</div><div class=\"card\"><table><tr><th>bar "
      "of "
      "thimble.toml</th><th class=\"n\">reached</th><th class=\"n\">asked</th><th></th></tr>",
      escape_html(d.job->name), kStyle, escape_html(d.job->description), cleared ? "go" : "nogo",
      cleared ? "GO" : "NO-GO");
  for (const BarResult& b : d.bars)
    out += fmt::format("<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} {}</td><td class=\"{}\">{}</td></tr>",
                       b.name, percent(b.value), b.at_least ? "at least" : "at most", percent(b.bar),
                       b.cleared ? "yes" : "no", b.cleared ? "✓ cleared" : "✗ missed");
  if (d.bars.empty()) out += "<tr><td colspan=\"4\">thimble.toml sets no bars; nothing was asked</td></tr>";
  out += "</table></div><h2>Before and after</h2>" + systems_table(d);
  if (!d.advice.empty()) {
    out += "<h2>Assessment</h2>";
    for (const std::string& line : d.advice) out += fmt::format("<p>{}</p>", escape_html(line));
  }
  out += failures(d) + curves(d) + data_card(d) + settings(d);
  return out + "</main></body></html>\n";
}

}  // namespace thimble
