#include "eval/evaluate.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <optional>

#include "calls/hermes.h"
#include "core/clock.h"

namespace thimble {

TokenTable token_table(const Tokenizer& tokenizer) {
  TokenTable table;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    table.bytes.push_back(tokenizer.token_bytes(id));
    table.special.push_back(tokenizer.is_special(id));
  }
  table.stop_ids = tokenizer.end_ids();
  return table;
}

namespace {
std::vector<int32_t> prompt_of(const PromptStyle& style, const Row& row, std::span<const Row> shots) {
  return style.prompt(row.turns, shots, row.tools ? &*row.tools : nullptr);
}
}  // namespace

Evaluation evaluate(Engine& engine, const PromptStyle& style, std::span<const Row> rows, const EvaluateOptions& options,
                    const ProgressFn& progress) {
  const auto start = Clock::now();
  // Rows with tools of their own have a constraint of their own.
  std::optional<ConstraintFactory> factory;
  std::optional<ConstraintSet> shared;
  std::deque<ConstraintSet> own;
  if (options.constrained)
    shared = factory.emplace(token_table(style.tokenizer())).compile(style.tools(), style.constraint());

  std::vector<GenerateRequest> requests;
  for (const Row& row : rows) {
    GenerateRequest request;
    request.prompt = prompt_of(style, row, options.shots);
    request.max_tokens = options.max_new_tokens;
    request.adapter = options.adapter;
    request.call_threshold = options.call_threshold;
    request.log_probs = options.log_probs;
    if (options.constrained) {
      request.constraint = &*shared;
      if (row.tools) request.constraint = &own.emplace_back(factory->compile(*row.tools, style.constraint()));
    }
    requests.push_back(std::move(request));
  }
  std::vector<Answer> answers = engine.run(std::move(requests), progress);

  Evaluation out;
  std::vector<RowScore> scores;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    AnsweredRow answered;
    answered.row = &row;
    answered.output = std::move(answers[i].text);
    answered.parsed = style.parse(answered.output);
    answered.score =
        score_row(row.calls, answered.parsed, row.tools ? std::span<const Tool>(*row.tools) : style.tools());
    answered.prompt_tokens = answers[i].prompt_tokens;
    answered.cached_tokens = answers[i].cached_tokens;
    answered.output_tokens = static_cast<int>(answers[i].tokens.size());
    answered.call_probability = answers[i].call_probability;
    answered.log_probs = std::move(answers[i].log_probs);
    answered.seconds = answers[i].seconds;
    answered.cut = answers[i].finish == FinishReason::kLength;
    out.prompt_tokens += answered.prompt_tokens;
    out.output_tokens += answered.output_tokens;
    out.forced_tokens += answers[i].forced_tokens;
    out.drafted_tokens += answers[i].drafted_tokens;
    out.accepted_tokens += answers[i].accepted_tokens;
    scores.push_back(answered.score);
    out.rows.push_back(std::move(answered));
  }
  out.score = summarize(scores);
  out.seconds = seconds_since(start);
  return out;
}

std::string prompts_to_jsonl(const PromptStyle& style, std::span<const Row> rows, std::span<const Row> shots) {
  std::string out;
  for (const Row& row : rows) {
    const std::vector<int32_t> tokens = prompt_of(style, row, shots);
    const Json line{
        {"id", row.id}, {"row", row.number}, {"prompt", style.tokenizer().decode(tokens)}, {"tokens", tokens}};
    out += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  return out;
}

std::string predictions_to_jsonl(const Evaluation& evaluation) {
  const auto calls = [](std::span<const Call> list) {
    Json out = Json::array();
    for (const Call& call : list) out.push_back({{"name", call.name}, {"arguments", call.arguments}});
    return out;
  };
  std::string out;
  for (const AnsweredRow& a : evaluation.rows) {
    Json line{{"id", a.row->id},
              {"row", a.row->number},
              {"query", a.row->query()},
              {"gold", calls(a.row->calls)},
              {"predicted", calls(a.parsed.calls)},
              {"output", a.output},
              {"exact", a.score.exact}};
    if (a.score.failure) line["failure"] = failure_name(*a.score.failure);
    if (!a.score.details.empty()) line["details"] = a.score.details;
    if (a.cut) line["cut"] = true;
    if (a.call_probability) line["call_probability"] = *a.call_probability;
    if (!a.log_probs.empty()) {
      line["mean_log_prob"] =
          std::accumulate(a.log_probs.begin(), a.log_probs.end(), 0.0) / static_cast<double>(a.log_probs.size());
      line["least_log_prob"] = *std::min_element(a.log_probs.begin(), a.log_probs.end());
    }
    out += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  return out;
}

}  // namespace thimble
