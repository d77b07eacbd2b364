#include "serve/messages_api.h"

#include <memory>
#include <optional>

#include "serve/fields.h"
#include "serve/messages_api_fields.h"
#include "serve/reply.h"

namespace thimble {
namespace {

Json error_json(const ApiError& error, const std::string& request_id) {
  const char* type = error.status == 401   ? "authentication_error"
                     : error.status == 403 ? "permission_error"
                     : error.status == 404 ? "not_found_error"
                     : error.status == 408 ? "timeout_error"
                     : error.status == 413 ? "request_too_large"
                     : error.status == 429 ? "rate_limit_error"
                     : error.status == 503 ? "overloaded_error"
                     : error.status >= 500 ? "api_error"
                                           : "invalid_request_error";
  return {{"type", "error"}, {"error", {{"type", type}, {"message", error.what()}}}, {"request_id", request_id}};
}

Json usage_json(const Answer& answer) {
  return {{"input_tokens", answer.prompt_tokens - answer.cached_tokens},
          {"cache_creation_input_tokens", 0},  // what is kept of a prompt costs nothing here
          {"cache_read_input_tokens", answer.cached_tokens},
          {"output_tokens", answer.tokens.size()}};
}

// A message as it grows: its blocks one after the other, the last one open. Lives on the engine's thread.
class MessageReply {
 public:
  MessageReply(Exchange exchange, const MessagesRequest& request, std::shared_ptr<const ServedModel> model)
      : exchange_(std::move(exchange)),
        model_(std::move(model)),
        stream_(request.generation.stream),
        thinking_(request.thinking),
        stops_(request.generation.how.stop),
        id_(new_id("msg_")) {}

  const std::string& id() const { return id_; }
  const std::vector<std::string>& call_ids(int) const { return call_ids_; }

  void events(int, const std::vector<AnswerEvent>& events, const Answer& so_far) {
    begin(so_far);
    for (const AnswerEvent& event : events) {
      if (event.kind == AnswerEvent::Kind::kReasoning && !thinking_) continue;
      if (event.kind == AnswerEvent::Kind::kCall || type_of(event) != open_) open_block(event);
      if (event.kind != AnswerEvent::Kind::kCall) add(event);
    }
  }

  void done(int index, const std::vector<AnswerEvent>& last, const Answer& answer) {
    events(index, last, answer);
    close_block();
    ended_ = true;
    const std::string stop = stopped_by(model_->base->tokenizer, answer, stops_);
    const char* reason = answer.finish == FinishReason::kLength ? "max_tokens"
                         : !call_ids_.empty()                   ? "tool_use"
                         : !stop.empty()                        ? "stop_sequence"
                                                                : "end_turn";
    const Json stop_sequence = std::string_view(reason) == "stop_sequence" ? Json(stop) : Json();
    if (stream_) {
      send({{"type", "message_delta"},
            {"delta", {{"stop_reason", reason}, {"stop_sequence", stop_sequence}}},
            {"usage", usage_json(answer)}});
      send({{"type", "message_stop"}});
      return exchange_.end();
    }
    Json out = message();
    out["content"] = std::move(blocks_);
    out["stop_reason"] = reason;
    out["stop_sequence"] = stop_sequence;
    out["usage"] = usage_json(answer);
    exchange_.respond(json_response(out));
  }

  void failed(const ApiError& error) {
    if (std::exchange(ended_, true)) return;
    const std::string& request = exchange_.request().id;
    if (exchange_.respond_unless_begun(messages_error_response(error, request))) return;
    send(error_json(error, request));
    exchange_.end();
  }

 private:
  enum class Block : uint8_t { kNone, kThinking, kText, kCall };

  static Block type_of(const AnswerEvent& event) {
    switch (event.kind) {
      case AnswerEvent::Kind::kReasoning:
        return Block::kThinking;
      case AnswerEvent::Kind::kText:
        return Block::kText;
      default:
        return Block::kCall;
    }
  }

  Json message() const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_->name},
            {"content", Json::array()},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr},
            {"usage", nullptr}};
  }

  void begin(const Answer& so_far) {
    if (!stream_ || started_) return;
    started_ = true;
    exchange_.start(event_stream());
    Json start = message();
    start["usage"] = usage_json(so_far);
    send({{"type", "message_start"}, {"message", std::move(start)}});
    send({{"type", "ping"}});
  }

  void open_block(const AnswerEvent& event) {
    close_block();
    open_ = type_of(event);
    text_.clear();
    switch (open_) {
      case Block::kNone:
        break;
      case Block::kThinking:
        block_ = {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
        break;
      case Block::kText:
        block_ = {{"type", "text"}, {"text", ""}, {"citations", nullptr}};
        break;
      case Block::kCall:
        call_ids_.push_back(new_id("toolu_"));
        block_ = {{"type", "tool_use"}, {"id", call_ids_.back()}, {"name", event.text}, {"input", Json::object()}};
        break;
    }
    if (stream_) send({{"type", "content_block_start"}, {"index", index_}, {"content_block", block_}});
  }

  void add(const AnswerEvent& event) {
    text_ += event.text;
    if (!stream_) return;
    switch (open_) {
      case Block::kNone:
        break;
      case Block::kThinking:
        return send_delta({{"type", "thinking_delta"}, {"thinking", event.text}});
      case Block::kText:
        return send_delta({{"type", "text_delta"}, {"text", event.text}});
      case Block::kCall:
        return send_delta({{"type", "input_json_delta"}, {"partial_json", event.text}});
    }
  }

  void close_block() {
    if (open_ == Block::kNone) return;
    if (stream_) {
      // Where thinking is signed, its signature comes here; nothing is signed, and none is asked for.
      if (open_ == Block::kThinking) send_delta({{"type", "signature_delta"}, {"signature", ""}});
      send({{"type", "content_block_stop"}, {"index", index_}});
    } else {
      if (open_ == Block::kThinking) block_["thinking"] = text_;
      if (open_ == Block::kText) block_["text"] = text_;
      // Arguments that max_tokens cut off are no object: such a call has no input.
      if (open_ == Block::kCall)
        if (auto input = try_parse_json(text_, nullptr); input && input->is_object())
          block_["input"] = std::move(*input);
      blocks_.push_back(std::move(block_));
    }
    ++index_;
    open_ = Block::kNone;
  }

  void send_delta(Json delta) {
    send({{"type", "content_block_delta"}, {"index", index_}, {"delta", std::move(delta)}});
  }
  void send(const Json& event) { exchange_.send(typed_sse(event)); }

  Exchange exchange_;
  std::shared_ptr<const ServedModel> model_;
  bool stream_, thinking_;
  std::vector<std::string> stops_;
  std::string id_;
  bool started_ = false, ended_ = false;
  std::vector<std::string> call_ids_;
  Json blocks_ = Json::array();
  Block open_ = Block::kNone;
  Json block_;        // the open one, as it began
  std::string text_;  // what came of it
  int index_ = 0;     // its number
};

}  // namespace

bool is_messages_path(std::string_view path) {
  constexpr std::string_view kMessages = "/v1/messages";
  return path.starts_with(kMessages) && (path.size() == kMessages.size() || path[kMessages.size()] == '/');
}

HttpResponse messages_error_response(const ApiError& error, const std::string& request_id) {
  HttpResponse response = json_response(error_json(error, request_id), error.status);
  if (error.retry_after > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  return response;
}

void messages(Service& service, const Exchange& exchange) {
  const Json body = parse_body(exchange.request().body);
  const MessagesRequest request = read_messages_request(body, false);
  check_room(service, 1);
  PreparedGeneration prepared = prepare(service.shelf, request.generation, service.limits);
  if (request.generation.stream) show_life_of_stream(exchange, typed_sse({{"type", "ping"}}));
  const auto reply = std::make_shared<MessageReply>(exchange, request, prepared.model);
  reply_with(service, exchange, body, std::move(prepared), reply);
}

void count_message_tokens(Service& service, const Exchange& exchange) {
  const MessagesRequest request = read_messages_request(parse_body(exchange.request().body), true);
  const PreparedGeneration prepared = prepare(service.shelf, request.generation, service.limits);
  check_model(exchange, *prepared.model);
  Exchange(exchange).respond(json_response({{"input_tokens", prepared.requests.front().prompt.size()}}));
}

}  // namespace thimble
