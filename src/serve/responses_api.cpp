#include "serve/responses_api.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "core/clock.h"
#include "serve/fields.h"
#include "serve/reply.h"
#include "serve/responses_api_fields.h"

namespace thimble {
namespace {

constexpr std::string_view kPath = "/v1/responses";

// Whose responses a request may see.
std::string owner_of(const Exchange& exchange) { return exchange.key() == nullptr ? "" : exchange.key()->name; }

// A response as it grows: its items one after the other, the last one open. Lives on the engine's thread.
class ResponseReply {
 public:
  ResponseReply(Exchange exchange, ResponsesRequest request, const PreparedGeneration& prepared, ResponseStore& store)
      : exchange_(std::move(exchange)),
        request_(std::move(request)),
        model_(prepared.model),
        store_(store),
        temperature_(prepared.requests.front().sampling.temperature),
        stream_(request_.generation.stream),
        log_probs_(request_.generation.how.log_probs),
        id_(new_id("resp_")),
        created_(unix_time()) {}

  const std::string& id() const { return id_; }
  const std::vector<std::string>& call_ids(int) const { return call_ids_; }

  void events(int, const std::vector<AnswerEvent>& events, const Answer& so_far) {
    begin();
    Json told = Json::array();  // belongs to the text, if these events are of it
    if (log_probs_) told = token_logprobs(model_->base->tokenizer, so_far, tokens_told_);
    for (const AnswerEvent& event : events) {
      if (event.kind == AnswerEvent::Kind::kCall || type_of(event) != open_) open_item(type_of(event), event.text);
      if (event.kind != AnswerEvent::Kind::kCall) add(event.text, std::exchange(told, Json::array()));
    }
    if (open_ == Item::kReasoning) reasoning_tokens_ = static_cast<int64_t>(so_far.tokens.size());
  }

  void done(int index, const std::vector<AnswerEvent>& last, const Answer& answer) {
    events(index, last, answer);
    ended_ = true;
    const bool cut = answer.finish == FinishReason::kLength;
    // An answer of no words is a message, too.
    if (open_ == Item::kNone || (open_ == Item::kReasoning && !cut)) open_item(Item::kMessage, "");
    if (log_probs_ && open_ == Item::kMessage)
      for (Json& one : token_logprobs(model_->base->tokenizer, answer, tokens_told_)) log_probs_told_.push_back(one);
    close_item(cut);
    Json out = response(cut ? "incomplete" : "completed");
    if (cut)
      out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    else
      out["completed_at"] = unix_time();
    out["output"] = items_;
    out["usage"] = usage(answer);
    if (request_.store && answer.finish != FinishReason::kCancelled)
      store_.put({out, std::move(request_.items), owner_of(exchange_)});
    if (!stream_) return exchange_.respond(json_response(out));
    send(cut ? "response.incomplete" : "response.completed", {{"response", std::move(out)}});
    exchange_.end();
  }

  void failed(const ApiError& error) {
    if (std::exchange(ended_, true)) return;
    if (exchange_.respond_unless_begun(error_response(error))) return;
    begin();
    Json out = response("failed");
    out["error"] = {{"code", "server_error"}, {"message", error.what()}};
    out["output"] = items_;
    send("response.failed", {{"response", std::move(out)}});
    exchange_.end();
  }

 private:
  enum class Item : uint8_t { kNone, kReasoning, kMessage, kCall };

  static Item type_of(const AnswerEvent& event) {
    switch (event.kind) {
      case AnswerEvent::Kind::kReasoning:
        return Item::kReasoning;
      case AnswerEvent::Kind::kText:
        return Item::kMessage;
      default:
        return Item::kCall;
    }
  }

  Json response(const char* status) const {
    Json out{{"id", id_},
             {"object", "response"},
             {"created_at", created_},
             {"status", status},
             {"error", nullptr},
             {"incomplete_details", nullptr},
             {"model", model_->name},
             {"output", Json::array()},
             {"temperature", temperature_},
             {"usage", nullptr}};
    out.update(request_.echo);
    return out;
  }

  Json usage(const Answer& answer) const {
    const auto written = static_cast<int64_t>(answer.tokens.size());
    return {{"input_tokens", answer.prompt_tokens},
            {"input_tokens_details", {{"cached_tokens", answer.cached_tokens}, {"cache_write_tokens", 0}}},
            {"output_tokens", written},
            {"output_tokens_details", {{"reasoning_tokens", reasoning_tokens_}}},
            {"total_tokens", answer.prompt_tokens + written}};
  }

  void begin() {
    if (!stream_ || started_) return;
    started_ = true;
    exchange_.start(event_stream());
    send("response.created", {{"response", response("in_progress")}});
    send("response.in_progress", {{"response", response("in_progress")}});
  }

  void open_item(Item type, const std::string& name) {
    close_item(false);
    open_ = type;
    text_.clear();
    log_probs_told_ = Json::array();
    const char* status = "in_progress";
    switch (type) {
      case Item::kNone:
        return;
      case Item::kReasoning:
        item_ = {{"id", new_id("rs_")},
                 {"type", "reasoning"},
                 {"status", status},
                 {"summary", Json::array()},
                 {"content", Json::array()}};
        break;
      case Item::kMessage:
        item_ = {{"id", new_id("msg_")},
                 {"type", "message"},
                 {"status", status},
                 {"role", "assistant"},
                 {"content", Json::array()}};
        break;
      case Item::kCall:
        call_ids_.push_back(new_id("call_"));
        item_ = {{"id", new_id("fc_")}, {"type", "function_call"}, {"status", status}, {"call_id", call_ids_.back()},
                 {"name", name},        {"arguments", ""}};
        break;
    }
    if (!stream_) return;
    send("response.output_item.added", {{"output_index", items_.size()}, {"item", item_}});
    if (type != Item::kCall) send_of_part("response.content_part.added", {{"part", part()}});
  }

  // The part of a message or of reasoning, as it is now.
  Json part() const {
    if (open_ == Item::kReasoning) return {{"type", "reasoning_text"}, {"text", text_}};
    return {{"type", "output_text"}, {"text", text_}, {"annotations", Json::array()}, {"logprobs", log_probs_told_}};
  }

  void add(const std::string& text, Json told) {
    text_ += text;
    if (open_ == Item::kMessage)
      for (const Json& one : told) log_probs_told_.push_back(one);
    if (!stream_) return;
    switch (open_) {
      case Item::kNone:
        return;
      case Item::kReasoning:
        return send_of_part("response.reasoning_text.delta", {{"delta", text}});
      case Item::kMessage:
        return send_of_part("response.output_text.delta", {{"delta", text}, {"logprobs", std::move(told)}});
      case Item::kCall:
        return send_of_item("response.function_call_arguments.delta", {{"delta", text}});
    }
  }

  void close_item(bool cut) {
    if (open_ == Item::kNone) return;
    item_["status"] = cut ? "incomplete" : "completed";
    if (open_ == Item::kCall)
      item_["arguments"] = text_;
    else
      item_["content"].push_back(part());
    if (stream_) {
      if (open_ == Item::kReasoning) send_of_part("response.reasoning_text.done", {{"text", text_}});
      if (open_ == Item::kMessage)
        send_of_part("response.output_text.done", {{"text", text_}, {"logprobs", log_probs_told_}});
      if (open_ == Item::kCall)
        send_of_item("response.function_call_arguments.done", {{"name", item_["name"]}, {"arguments", text_}});
      else
        send_of_part("response.content_part.done", {{"part", part()}});
      send("response.output_item.done", {{"output_index", items_.size()}, {"item", item_}});
    }
    items_.push_back(std::move(item_));
    open_ = Item::kNone;
  }

  void send_of_part(const char* type, Json fields) {
    fields["content_index"] = 0;
    send_of_item(type, std::move(fields));
  }
  void send_of_item(const char* type, Json fields) {
    fields["item_id"] = item_["id"];
    fields["output_index"] = items_.size();
    send(type, std::move(fields));
  }
  void send(const char* type, Json fields) {
    Json event{{"type", type}, {"sequence_number", sequence_++}};
    event.update(fields);
    exchange_.send(typed_sse(event));
  }

  Exchange exchange_;
  ResponsesRequest request_;
  std::shared_ptr<const ServedModel> model_;
  ResponseStore& store_;
  float temperature_;
  bool stream_, log_probs_;
  std::string id_;
  int64_t created_;
  bool started_ = false, ended_ = false;
  int64_t sequence_ = 0, reasoning_tokens_ = 0;
  size_t tokens_told_ = 0;
  Json items_ = Json::array();
  Item open_ = Item::kNone;
  Json item_;         // the open one, as it began
  std::string text_;  // what came of it
  std::vector<std::string> call_ids_;
  Json log_probs_told_ = Json::array();
};

// GET /v1/responses/ID/input_items, a page of them.
Json list_items(const Json& items, const HttpRequest& request) {
  int64_t limit = 20;
  if (const std::string* given = request.parameter("limit")) {
    const char* end = given->data() + given->size();
    const auto [stop, error] = std::from_chars(given->data(), end, limit);
    if (error != std::errc() || stop != end || limit < 1 || limit > 100)
      throw ApiError(400, fmt::format("limit: is '{}', but must be a whole number from 1 to 100", *given), "limit");
  }
  const std::string* order = request.parameter("order");
  if (order != nullptr && *order != "asc" && *order != "desc")
    throw ApiError(400, fmt::format("order: is '{}', but must be asc or desc", *order), "order");
  std::vector<const Json*> list;
  for (const Json& item : items) list.push_back(&item);
  if (order == nullptr || *order == "desc") std::reverse(list.begin(), list.end());
  size_t from = 0;
  if (const std::string* after = request.parameter("after")) {
    while (from < list.size() && (*list[from])["id"] != *after) ++from;
    if (from == list.size()) throw ApiError(400, fmt::format("after: there is no item '{}'", *after), "after");
    ++from;
  }
  const size_t to = std::min(list.size(), from + static_cast<size_t>(limit));
  Json data = Json::array();
  for (size_t i = from; i < to; ++i) data.push_back(*list[i]);
  const Json first = data.empty() ? Json("") : data.front()["id"], last = data.empty() ? Json("") : data.back()["id"];
  return {{"object", "list"}, {"data", data}, {"first_id", first}, {"last_id", last}, {"has_more", to < list.size()}};
}

}  // namespace

void responses(Service& service, const Exchange& exchange) {
  const std::string& path = exchange.request().path;
  const bool counting = path == "/v1/responses/input_tokens";
  if (path.size() > kPath.size() && !counting)
    throw ApiError(404,
                   fmt::format("{}: there is nothing to post to here; a response ends when its client leaves", path));
  const Json body = parse_body(exchange.request().body);
  ResponsesRequest request = read_responses_request(body, service.responses, owner_of(exchange));
  if (!counting) check_room(service, 1);
  PreparedGeneration prepared = prepare(service.shelf, request.generation, service.limits);
  check_model(exchange, *prepared.model);
  if (counting)
    return Exchange(exchange).respond(json_response(
        {{"object", "response.input_tokens"}, {"input_tokens", prepared.requests.front().prompt.size()}}));
  if (request.generation.stream) show_life_of_stream(exchange);
  const auto reply = std::make_shared<ResponseReply>(exchange, std::move(request), prepared, service.responses);
  reply_with(service, exchange, body, std::move(prepared), reply);
}

void stored_response(Service& service, const Exchange& exchange) {
  const HttpRequest& request = exchange.request();
  std::string id = request.path.substr(std::min(request.path.size(), kPath.size() + 1));
  const bool items = id.ends_with("/input_items");
  if (items) id.resize(id.size() - std::string_view("/input_items").size());
  const std::string owner = owner_of(exchange);
  const auto stored = service.responses.find(id, owner);
  if (stored == nullptr)
    throw ApiError(404, fmt::format("Response with id '{}' not found.", id), "response_id", "response_not_found");
  Exchange reply = exchange;
  if (request.method == "DELETE") {
    if (items) throw ApiError(405, "the items of a response can't be deleted; delete the response");
    service.responses.drop(id, owner);
    return reply.respond(json_response({{"id", id}, {"object", "response"}, {"deleted", true}}));
  }
  if (const std::string* stream = request.parameter("stream"); stream != nullptr && *stream == "true")
    throw ApiError(400, "stream: a stored response is given whole; leave stream out", "stream");
  reply.respond(json_response(items ? list_items(stored->items, request) : stored->response));
}

}  // namespace thimble
