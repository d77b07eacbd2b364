#pragma once

#include <fmt/core.h>

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "serve/contents_log.h"
#include "serve/logged_request.h"
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
// Lets a stream show that it lives while it has nothing to say, by a comment unless the API has an event for it.
void show_life_of_stream(const Exchange& exchange, std::string piece = ": ping\n\n");
std::string typed_sse(const Json& event);  // one event that is named by its "type", as Anthropic's and Responses' are

// Which of the request's stop strings ended the answer; empty where none did.
std::string stopped_by(const Tokenizer& tokenizer, const Answer& answer, std::span<const std::string> stops);

// What OpenAI's logprobs.content holds of the answer's tokens from `told` on, which moves.
Json token_logprobs(const Tokenizer& tokenizer, const Answer& answer, size_t& told);

// Tells the metrics of one request what becomes of it.
class CountedRequest {
 public:
  CountedRequest(Metrics& metrics, std::string endpoint, const PreparedGeneration& prepared)
      : metrics_(metrics),
        endpoint_(std::move(endpoint)),
        model_(prepared.model->name),
        choices_(prepared.choices),
        told_(prepared.requests.size() * static_cast<size_t>(prepared.choices)),
        open_(told_.size()) {}

  void grew(int index, const Answer& so_far) {
    int64_t& told = told_[static_cast<size_t>(index)];
    const auto tokens = static_cast<int64_t>(so_far.tokens.size());
    metrics_.generated(model_, tokens - std::exchange(told, tokens));
  }
  void done(int index, const Answer& answer) {
    grew(index, answer);
    metrics_.answered(model_, answer, index % choices_ == 0);
    if (open_ > 0 && --open_ == 0) metrics_.request(endpoint_, 200, model_);
  }
  void failed(int status) {
    if (std::exchange(open_, 0) > 0) metrics_.request(endpoint_, status, model_);
  }

 private:
  Metrics& metrics_;
  std::string endpoint_, model_;
  int choices_;
  std::vector<int64_t> told_;  // tokens, by answer
  size_t open_;
};

// Generates for a reply, an object with events(), done() and failed(); a client that leaves ends its answers. `body` is
// what it sent, which goes into the contents log if there is one, beside the reply's id() and, by answer, call_ids().
template <class Reply>
void reply_with(Service& service, const Exchange& exchange, const Json& body, PreparedGeneration prepared,
                const std::shared_ptr<Reply>& reply) {
  check_model(exchange, *prepared.model);
  Exchange(exchange).note(prepared.model->name);
  auto count = [guard = service.guard, exchange = Exchange(exchange), choices = prepared.choices,
                model = prepared.model->name, usage = Usage()](int index, const Answer& answer) mutable {
    const bool first = index % choices == 0;
    usage.add(answer, first);
    exchange.note(fmt::format("{}, {} + {} tokens", model, usage.prompt, usage.completion));
    if (guard == nullptr) return;
    guard->count_tokens(exchange.key(),
                        (first ? answer.prompt_tokens : 0) + static_cast<int64_t>(answer.tokens.size()));
  };
  for (GenerateRequest& request : prepared.requests) request.client = client_of(exchange);
  const auto counted = std::make_shared<CountedRequest>(service.metrics, exchange.request().path, prepared);
  const auto logged =
      service.contents == nullptr
          ? nullptr
          : std::make_shared<LoggedRequest>(*service.contents, exchange, body, prepared, reply->id());
  const RunningGeneration running =
      generate(service.engines, std::move(prepared),
               {.on_events = [reply, counted, logged](int index, const auto& events, const Answer& so_far) {
                  counted->grew(index, so_far);
                  reply->events(index, events, so_far);
                  if (logged) logged->events(index, events, so_far, reply->call_ids(index));
                },
                .on_done = [reply, counted, logged, count = std::move(count)](int index, const auto& events,
                                                                              const Answer& answer) mutable {
                  count(index, answer);
                  counted->done(index, answer);
                  reply->done(index, events, answer);
                  if (logged) logged->done(index, events, answer, reply->call_ids(index));
                },
                .on_error = [reply, counted, logged](const ApiError& error) {
                  counted->failed(error.status);
                  reply->failed(error);
                  if (logged) logged->failed(error);
                }});
  Exchange(exchange).on_gone([running] { running.cancel(); });
}

}  // namespace thimble
