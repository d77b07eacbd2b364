#pragma once

#include <fmt/core.h>

#include <memory>
#include <span>
#include <string>
#include <utility>

#include "serve/service.h"

namespace thimble {

// What the replies of the APIs have in common.

// Tokens of all answers to a request.
struct Usage {
  int64_t prompt = 0, completion = 0, cached = 0;
  int64_t reasoning = 0;  // of completion: before anything was said or called

  // first: the prompt's first answer, with which the prompt counts.
  void add(const Answer& answer, bool first) {
    completion += static_cast<int64_t>(answer.tokens.size());
    if (!first) return;
    prompt += answer.prompt_tokens;
    cached += answer.cached_tokens;
  }
  Json to_json() const {  // OpenAI's
    return {{"prompt_tokens", prompt},
            {"completion_tokens", completion},
            {"total_tokens", prompt + completion},
            {"prompt_tokens_details", {{"cached_tokens", cached}, {"audio_tokens", 0}}},
            {"completion_tokens_details",
             {{"reasoning_tokens", reasoning}, {"audio_tokens", 0}, {"accepted_prediction_tokens", 0},
              {"rejected_prediction_tokens", 0}}}};
  }
};

// Whose request it is, so that clients take turns: its key, or else its address.
int64_t client_of(const Exchange& exchange);

HttpResponse event_stream();  // the head of a stream of server-sent events
std::string typed_sse(const Json& event);  // one event that is named by its "type", as Anthropic's and Responses' are

// Which of the request's stop strings ended the answer; empty where none did.
std::string stopped_by(const Tokenizer& tokenizer, const Answer& answer, std::span<const std::string> stops);

// What OpenAI's logprobs.content holds of the answer's tokens from `told` on, which moves.
Json token_logprobs(const Tokenizer& tokenizer, const Answer& answer, size_t& told);

// Generates for a reply, an object with events(), done() and failed(); a client that leaves ends its answers.
template <class Reply>
void reply_with(Service& service, const Exchange& exchange, PreparedGeneration prepared,
                const std::shared_ptr<Reply>& reply) {
  check_model(exchange, *prepared.model);
  Exchange(exchange).note(prepared.model->name);
  auto count = [guard = service.guard, exchange = Exchange(exchange), choices = prepared.choices, model = prepared.model->name,
                      usage = Usage()](int index, const Answer& answer) mutable {
    const bool first = index % choices == 0;
    usage.add(answer, first);
    exchange.note(fmt::format("{}, {} + {} tokens", model, usage.prompt, usage.completion));
    if (guard == nullptr) return;
    guard->count_tokens(exchange.key(),
                        (first ? answer.prompt_tokens : 0) + static_cast<int64_t>(answer.tokens.size()));
  };
  for (GenerateRequest& request : prepared.requests) request.client = client_of(exchange);
  const RunningGeneration running =
      generate(service.engines, std::move(prepared),
               {.on_events = [reply](int index, const auto& events, const Answer& so_far) {
                  reply->events(index, events, so_far);
                },
                .on_done = [reply, count = std::move(count)](int index, const auto& events, const Answer& answer) mutable {
                  count(index, answer);
                  reply->done(index, events, answer);
                },
                .on_error = [reply](const ApiError& error) { reply->failed(error); }});
  Exchange(exchange).on_gone([running] { running.cancel(); });
}

}  // namespace thimble
