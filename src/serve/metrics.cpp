#include "serve/metrics.h"

#include <array>
#include <functional>

namespace thimble {
namespace {

using Kind = MetricsText::Kind;

// vLLM's bounds, so that its dashboards' heat maps fit; smaller ones below, because small models answer in less.
constexpr std::array kFirstToken = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
                                    0.75,  1.0,    2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0};
constexpr std::array kBetweenTokens = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                       0.2,   0.3,    0.4,   0.5,  0.75,  1.0,  2.5,   5.0};
constexpr std::array kWhole = {0.01, 0.025, 0.05, 0.1,  0.2,  0.3,  0.5,  0.8,  1.0,   1.5,
                               2.0,  2.5,   5.0,  10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0};
constexpr std::array kTokens = {1.0,   2.0,    5.0,    10.0,   20.0,   50.0,    100.0,
                                200.0, 500.0,  1000.0, 2000.0, 5000.0, 10000.0, 20000.0};

}  // namespace

Metrics::OfModel::OfModel()
    : first_token(kFirstToken),
      between_tokens(kBetweenTokens),
      whole(kWhole),
      prompt_tokens(kTokens),
      answer_tokens(kTokens) {}

void Metrics::request(std::string_view endpoint, int status, std::string_view model) {
  const std::scoped_lock lock(mutex_);
  ++requests_[{std::string(model), std::string(endpoint), status}];
}

void Metrics::generated(const std::string& model, int64_t tokens) {
  const std::scoped_lock lock(mutex_);
  models_[model].generated += tokens;
}

void Metrics::answered(const std::string& model, const Answer& answer, bool first) {
  const std::scoped_lock lock(mutex_);
  OfModel& of = models_[model];
  const auto tokens = static_cast<int64_t>(answer.tokens.size());
  if (first) {
    of.prompt += answer.prompt_tokens;
    of.cached += answer.cached_tokens;
    of.prompt_tokens.observe(answer.prompt_tokens);
  }
  of.forced += answer.forced_tokens;
  of.drafted += answer.drafted_tokens;
  of.accepted += answer.accepted_tokens;
  of.answer_tokens.observe(static_cast<double>(tokens));
  switch (answer.finish) {
    case FinishReason::kStop: ++of.stopped; break;
    case FinishReason::kLength: ++of.too_long; break;
    case FinishReason::kCancelled: ++of.cancelled; break;
  }
  if (answer.finish == FinishReason::kCancelled) return;  // its times say when the client left
  of.whole.observe(answer.seconds);
  if (tokens == 0) return;
  of.first_token.observe(answer.first_token_s);
  if (tokens > 1)
    of.between_tokens.observe((answer.seconds - answer.first_token_s) / static_cast<double>(tokens - 1), tokens - 1);
}

void Metrics::write(MetricsText& out) const {
  const std::scoped_lock lock(mutex_);
  out.family("thimble_requests_total", Kind::kCounter, "Requests answered, by model, endpoint and HTTP status.");
  for (const auto& [key, count] : requests_) {
    const auto& [model, endpoint, status] = key;
    const std::string status_text = std::to_string(status);
    out.sample({{"model_name", model}, {"endpoint", endpoint}, {"status", status_text}}, static_cast<double>(count));
  }
  const auto counters = [&](const char* name, const char* help, auto member) {
    out.family(name, Kind::kCounter, help);
    for (const auto& [model, of] : models_)
      out.sample({{"model_name", model}}, static_cast<double>(std::invoke(member, of)));
  };
  const auto histograms = [&](const char* name, const char* help, auto member) {
    out.family(name, Kind::kHistogram, help);
    for (const auto& [model, of] : models_) out.histogram({{"model_name", model}}, std::invoke(member, of));
  };
  counters("vllm:prompt_tokens_total", "Tokens of prompts, those found in the cache included.", &OfModel::prompt);
  counters("vllm:generation_tokens_total", "Tokens of answers.", &OfModel::generated);
  out.family("vllm:request_success_total", Kind::kCounter, "Answers that ended by themselves or at their limit.");
  for (const auto& [model, of] : models_) {
    out.sample({{"model_name", model}, {"finished_reason", "stop"}}, static_cast<double>(of.stopped));
    out.sample({{"model_name", model}, {"finished_reason", "length"}}, static_cast<double>(of.too_long));
    out.sample({{"model_name", model}, {"finished_reason", "abort"}}, static_cast<double>(of.cancelled));
  }
  counters("vllm:prefix_cache_queries_total", "Tokens of prompts that were looked for in the cache.", &OfModel::prompt);
  counters("vllm:prefix_cache_hits_total", "Of them, found.", &OfModel::cached);
  counters("vllm:spec_decode_num_draft_tokens_total", "Tokens of answers that were guessed ahead.", &OfModel::drafted);
  counters("vllm:spec_decode_num_accepted_tokens_total", "Of them, right.", &OfModel::accepted);
  counters("thimble_forced_tokens_total", "Tokens of answers that the schemas left no choice about.", &OfModel::forced);
  histograms("vllm:time_to_first_token_seconds", "From asking to the first token, waiting included.",
             &OfModel::first_token);
  histograms("vllm:inter_token_latency_seconds",
             "Between tokens; all intervals of an answer count as their mean, because forced tokens come in groups.",
             &OfModel::between_tokens);
  histograms("vllm:e2e_request_latency_seconds", "From asking to the end of an answer.", &OfModel::whole);
  histograms("vllm:request_prompt_tokens", "Tokens of a prompt.", &OfModel::prompt_tokens);
  histograms("vllm:request_generation_tokens", "Tokens of an answer.", &OfModel::answer_tokens);
}

}  // namespace thimble
