#include "eval/calibrate.h"

#include <algorithm>
#include <cmath>

#include "eval/evaluate.h"

namespace thimble {
namespace {

double log_odds(double probability) {
  const double p = std::clamp(probability, 1e-6, 1 - 1e-6);
  return std::log(p / (1 - p));
}
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

std::optional<double> choose_call_threshold(std::span<const CallDecision> decisions) {
  const auto due = std::count_if(decisions.begin(), decisions.end(), [](const CallDecision& d) { return d.due; });
  if (due < 10 || static_cast<std::ptrdiff_t>(decisions.size()) - due < 10) return std::nullopt;
  constexpr double kWidth = 0.5, kStep = 0.05;
  constexpr int kSteps = 80;  // to 4 units of log-odds, 0.982, on either side of even odds
  double best = -1, best_at = 0;
  // From the middle outwards, so that of equal ones the least odd wins.
  for (int i = 0; i <= 2 * kSteps; ++i) {
    const double at = kStep * (i % 2 == 0 ? i / 2 : -(i + 1) / 2);
    double right = 0;
    for (const CallDecision& d : decisions)
      right += logistic((d.due ? 1 : -1) * (log_odds(d.probability) - at) / kWidth);
    if (right > best + 1e-9) best = right, best_at = at;
  }
  return logistic(best_at);
}

std::optional<double> calibrate_calls(Engine& engine, const PromptStyle& style, std::span<const Row> rows,
                                      int adapter) {
  if (style.tools().empty() || style.plan()) return std::nullopt;
  const ConstraintSet constraint = ConstraintFactory(token_table(engine.tokenizer())).compile(style.tools());
  std::vector<GenerateRequest> requests;
  std::vector<CallDecision> decisions;
  for (const Row& row : rows) {
    if (row.tools) continue;
    GenerateRequest request;
    request.prompt = style.prompt(row.turns);
    request.max_tokens = 1;
    request.constraint = &constraint;
    request.adapter = adapter;
    requests.push_back(std::move(request));
    decisions.push_back({0, !row.calls.empty()});
  }
  const std::vector<Answer> answers = engine.run(std::move(requests));
  for (size_t i = 0; i < answers.size(); ++i) decisions[i].probability = answers[i].call_probability.value_or(0);
  return choose_call_threshold(decisions);
}

}  // namespace thimble
