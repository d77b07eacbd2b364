#include <fmt/core.h>

#include <map>
#include <memory>
#include <mutex>

#include "core/clock.h"
#include "serve/chat_fields.h"
#include "serve/reply.h"
#include "serve/service.h"

namespace thimble {
namespace {

const char* finish_name(const Answer& answer, bool calls) {
  if (answer.finish == FinishReason::kLength) return "length";
  return calls ? "tool_calls" : "stop";
}

// One choice as it grows.
struct Choice {
  WholeAnswer whole;
  std::vector<std::string> call_ids;
  size_t tokens_told = 0;
  int64_t reasoning_tokens = 0;
  bool begun = false;
  bool done = false;
  const char* finish = "stop";
  Json logprobs = Json::array();
};

Json call_to_json(const WholeAnswer::WrittenCall& call, const std::string& id) {
  return {{"id", id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

// The answers to one request, told as they come or at the end. Lives on the engine's thread.
class ChatReply {
 public:
  ChatReply(Exchange exchange, const GenerationRequest& request, std::shared_ptr<const ServedModel> model)
      : exchange_(std::move(exchange)),
        model_(std::move(model)),
        stream_(request.stream),
        include_usage_(request.include_usage),
        logprobs_(request.how.log_probs),
        choices_(static_cast<size_t>(request.choices)),
        id_(new_id("chatcmpl-")),
        created_(unix_time()) {}

  const std::string& id() const { return id_; }
  const std::vector<std::string>& call_ids(int index) const { return choices_[static_cast<size_t>(index)].call_ids; }

  void events(int index, const std::vector<AnswerEvent>& events, const Answer& so_far) {
    Choice& choice = choices_[static_cast<size_t>(index)];
    Json told = Json::array();
    if (logprobs_) told = token_logprobs(model_->base->tokenizer, so_far, choice.tokens_told);
    for (const AnswerEvent& event : events) {
      choice.whole.add(event);
      if (event.kind == AnswerEvent::Kind::kCall) choice.call_ids.push_back(new_id("call_"));
      if (!stream_) continue;
      begin(index);
      send(index, delta(choice, event), nullptr, std::exchange(told, Json::array()));
    }
    if (!choice.whole.reasoning.empty() && choice.whole.text.empty() && choice.whole.calls.empty())
      choice.reasoning_tokens = static_cast<int64_t>(so_far.tokens.size());
    for (Json& one : told) choice.logprobs.push_back(std::move(one));  // not streamed, or of what is held back
  }

  void done(int index, const std::vector<AnswerEvent>& last, const Answer& answer) {
    events(index, last, answer);
    Choice& choice = choices_[static_cast<size_t>(index)];
    if (logprobs_)
      for (Json& one : token_logprobs(model_->base->tokenizer, answer, choice.tokens_told))
        choice.logprobs.push_back(std::move(one));
    choice.done = true;
    choice.finish = finish_name(answer, !choice.whole.calls.empty());
    usage_.add(answer, index == 0);
    usage_.reasoning += choice.reasoning_tokens;
    if (stream_) {
      begin(index);
      send(index, Json::object(), choice.finish, std::exchange(choice.logprobs, Json::array()));
    }
    if (++done_ == choices_.size()) finish();
  }

  void failed(const ApiError& error) {
    if (done_ == choices_.size()) return;
    done_ = choices_.size();
    if (exchange_.respond_unless_begun(error_response(error))) return;
    exchange_.send(sse(error_to_json(error)));
    exchange_.end();
  }

 private:
  void begin(int index) {
    Choice& choice = choices_[static_cast<size_t>(index)];
    if (choice.begun) return;
    choice.begun = true;
    if (!started_) exchange_.start(event_stream());
    started_ = true;
    send(index, {{"role", "assistant"}, {"content", ""}}, nullptr, Json::array());
  }

  Json delta(const Choice& choice, const AnswerEvent& event) const {
    switch (event.kind) {
      case AnswerEvent::Kind::kReasoning: return {{"reasoning_content", event.text}};
      case AnswerEvent::Kind::kText: return {{"content", event.text}};
      case AnswerEvent::Kind::kCall: {
        Json call = call_to_json({event.text, ""}, choice.call_ids.back());
        call["index"] = choice.call_ids.size() - 1;
        return {{"tool_calls", Json::array({std::move(call)})}};
      }
      case AnswerEvent::Kind::kArguments:
        return {{"tool_calls", Json::array({{{"index", choice.call_ids.size() - 1},
                                             {"function", {{"arguments", event.text}}}}})}};
    }
    return Json::object();
  }

  Json frame(const char* object) const {
    return {{"id", id_},
            {"object", object},
            {"created", created_},
            {"model", model_->name},
            {"system_fingerprint", fmt::format("fp_{:.12}", model_->base->fingerprint)}};
  }

  void send(int index, Json delta, const char* finish, Json logprobs) {
    Json chunk = frame("chat.completion.chunk");
    chunk["choices"] = Json::array({{{"index", index},
                                     {"delta", std::move(delta)},
                                     {"logprobs", nullptr},
                                     {"finish_reason", finish != nullptr ? Json(finish) : Json()}}});
    if (!logprobs.empty()) chunk["choices"][0]["logprobs"] = {{"content", std::move(logprobs)}, {"refusal", nullptr}};
    if (include_usage_) chunk["usage"] = nullptr;
    exchange_.send(sse(chunk));
  }

  void finish() {
    if (stream_) {
      if (include_usage_) {
        Json chunk = frame("chat.completion.chunk");
        chunk["choices"] = Json::array();
        chunk["usage"] = usage_.to_json();
        exchange_.send(sse(chunk));
      }
      exchange_.send("data: [DONE]\n\n");
      return exchange_.end();
    }
    Json out = frame("chat.completion");
    out["choices"] = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      Choice& choice = choices_[i];
      const WholeAnswer& whole = choice.whole;
      Json message{{"role", "assistant"},
                   {"content", whole.text.empty() && !whole.calls.empty() ? Json() : Json(whole.text)},
                   {"refusal", nullptr}};
      if (!whole.reasoning.empty()) message["reasoning_content"] = whole.reasoning;
      if (!whole.calls.empty()) {
        message["tool_calls"] = Json::array();
        for (size_t c = 0; c < whole.calls.size(); ++c)
          message["tool_calls"].push_back(call_to_json(whole.calls[c], choice.call_ids[c]));
      }
      Json one{{"index", i}, {"message", std::move(message)}, {"logprobs", nullptr}, {"finish_reason", choice.finish}};
      if (logprobs_) one["logprobs"] = {{"content", std::move(choice.logprobs)}, {"refusal", nullptr}};
      out["choices"].push_back(std::move(one));
    }
    out["usage"] = usage_.to_json();
    exchange_.respond(json_response(out));
  }

  Exchange exchange_;
  std::shared_ptr<const ServedModel> model_;
  bool stream_, include_usage_, logprobs_;
  std::vector<Choice> choices_;
  std::string id_;
  int64_t created_;
  Usage usage_;
  size_t done_ = 0;
  bool started_ = false;
};

}  // namespace

void chat_completions(Service& service, const Exchange& exchange) {
  const Json body = parse_body(exchange.request().body);
  const GenerationRequest request = read_chat_request(body);
  check_room(service, request.choices);
  PreparedGeneration prepared = prepare(service.shelf, request, service.limits);
  if (request.stream) show_life_of_stream(exchange);
  const auto reply = std::make_shared<ChatReply>(exchange, request, prepared.model);
  reply_with(service, exchange, body, std::move(prepared), reply);
}

}  // namespace thimble
