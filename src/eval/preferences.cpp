#include "eval/preferences.h"

#include <fmt/core.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>

#include "eval/evaluate.h"
#include "eval/score.h"

namespace thimble {
namespace {

RejectedAnswer rejected_of(const ParsedAnswer& parsed, bool plan) {
  RejectedAnswer out{parsed.calls, parsed.calls.empty() ? std::string(parsed.text) : std::string(), ""};
  if (plan) out.plan = parsed.plan;
  return out;
}

// Invalid UTF-8, which a model can write, is replaced, so that what is kept can be written as JSON.
std::string text_of(const RejectedAnswer& answer) {
  return rejected_to_json(answer).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void keep_wrong(const PromptStyle& style, const Row& row, size_t index, std::span<const Answer> answers, int keep,
                FoundPreferences& found) {
  std::map<std::string, size_t> known;  // by what was written
  std::vector<WrongAnswer> wrong;
  for (const Answer& answer : answers) {
    if (answer.finish == FinishReason::kLength) continue;
    ++found.answers;
    const ParsedAnswer parsed = style.parse(answer.text);
    if (score_row(row.calls, parsed, row.tools ? std::span<const Tool>(*row.tools) : style.tools()).exact) continue;
    const RejectedAnswer rejected = rejected_of(parsed, style.plan());
    if (rejected.calls.empty() && rejected.text.empty()) continue;
    ++found.answers_wrong;
    const auto [place, is_new] = known.emplace(text_of(rejected), wrong.size());
    if (is_new) wrong.push_back({index, rejected, 0});
    ++wrong[place->second].times;
  }
  if (wrong.empty()) return;
  ++found.rows_wrong;
  std::stable_sort(wrong.begin(), wrong.end(), [](const auto& a, const auto& b) { return a.times > b.times; });
  wrong.resize(std::min(wrong.size(), static_cast<size_t>(keep)));
  found.wrong.insert(found.wrong.end(), wrong.begin(), wrong.end());
}

}  // namespace

FoundPreferences find_preferences(Engine& engine, const PromptStyle& style, std::span<const Row> rows,
                                  const PreferenceOptions& options, const ProgressFn& progress) {
  const ConstraintFactory factory(token_table(style.tokenizer()));
  const ConstraintSet shared = factory.compile(style.tools(), style.constraint());
  FoundPreferences found;
  // A few rows at a time: every request that waits holds a grammar's state.
  constexpr size_t kRows = 64;
  for (size_t first = 0; first < rows.size(); first += kRows) {
    const size_t last = std::min(rows.size(), first + kRows);
    std::deque<ConstraintSet> own;
    std::vector<GenerateRequest> requests;
    for (size_t i = first; i < last; ++i) {
      const Row& row = rows[i];
      GenerateRequest request;
      request.prompt = style.prompt(row.turns, {}, row.tools ? &*row.tools : nullptr);
      request.max_tokens = options.max_new_tokens;
      request.adapter = options.adapter;
      request.constraint = row.tools ? &own.emplace_back(factory.compile(*row.tools, style.constraint())) : &shared;
      request.sampling.temperature = static_cast<float>(options.temperature);
      for (int sample = 0; sample < options.samples; ++sample) {
        request.sampling.seed = options.seed + requests.size() + first * static_cast<size_t>(options.samples);
        requests.push_back(request);
      }
    }
    const std::vector<Answer> answers = engine.run(std::move(requests));
    for (size_t i = first; i < last; ++i)
      keep_wrong(style, rows[i], i,
                 std::span(answers).subspan((i - first) * static_cast<size_t>(options.samples),
                                            static_cast<size_t>(options.samples)),
                 options.keep, found);
    if (progress)
      progress({"answering", static_cast<double>(last), static_cast<double>(rows.size()), "rows",
                fmt::format("{} answered wrong", found.rows_wrong)});
  }
  return found;
}

Json rejected_to_json(const RejectedAnswer& answer) {
  Json out = Json::object();
  if (!answer.calls.empty()) {
    out["calls"] = Json::array();
    for (const Call& call : answer.calls) out["calls"].push_back({{"name", call.name}, {"arguments", call.arguments}});
  }
  if (!answer.text.empty()) out["answer"] = answer.text;
  if (!answer.plan.empty()) out["plan"] = answer.plan;
  return out;
}

}  // namespace thimble
