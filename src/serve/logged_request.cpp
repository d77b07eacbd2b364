#include "serve/logged_request.h"

#include <array>
#include <utility>

#include "serve/contents_log.h"
#include "serve/service.h"

namespace thimble {
namespace {

// The fields of bodies that have a column of their own, whatever the API calls them.
using Column = std::optional<std::string> ContentsEntry::*;
constexpr std::array<std::pair<std::string_view, Column>, 10> kColumns = {{
    {"messages", &ContentsEntry::messages},
    {"input", &ContentsEntry::messages},  // of responses
    {"prompt", &ContentsEntry::prompt},
    {"system", &ContentsEntry::system},
    {"instructions", &ContentsEntry::system},
    {"tools", &ContentsEntry::tools},
    {"response_format", &ContentsEntry::response_format},
    {"text", &ContentsEntry::response_format},
    {"output_format", &ContentsEntry::response_format},
    {"output_config", &ContentsEntry::response_format},
}};

void read_body(const Json& body, ContentsEntry& entry) {
  Json parameters = Json::object();
  for (const auto& [field, value] : body.items()) {
    if (field == "model" && value.is_string()) {
      entry.model_asked = value.get<std::string>();
      continue;
    }
    Column column = nullptr;
    for (const auto& [name, known] : kColumns)
      if (field == name) column = known;
    // Two fields for one column (output_format beside output_config): the second is kept with the others.
    if (column != nullptr && !(entry.*column) && !value.is_null()) entry.*column = json_text(value);
    else parameters[field] = value;
  }
  entry.parameters = json_text(parameters);
}

// As the client gets it: bytes that are not UTF-8 are replaced.
std::string as_sent(const std::string& text) { return Json::parse(json_text(text)).get<std::string>(); }

std::string calls_json(const std::vector<WholeAnswer::WrittenCall>& calls, const std::vector<std::string>& ids) {
  Json out = Json::array();
  for (size_t i = 0; i < calls.size(); ++i)
    out.push_back({{"id", i < ids.size() ? Json(ids[i]) : Json()},
                   {"type", "function"},
                   {"function", {{"name", calls[i].name}, {"arguments", calls[i].arguments}}}});
  return json_text(out);
}

const char* finish_name(const Answer& answer, bool calls) {
  switch (answer.finish) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kStop:
      break;
  }
  return calls ? "tool_calls" : "stop";
}

}  // namespace

LoggedRequest::LoggedRequest(ContentsLog& log, const Exchange& exchange, const Json& body,
                             const PreparedGeneration& prepared, std::string id)
    : log_(log),
      choices_(static_cast<size_t>(prepared.choices)),
      answers_(prepared.requests.size() * choices_),
      open_(answers_.size()) {
  entry_.id = std::move(id);
  entry_.http_id = exchange.request().id;
  entry_.time_ms = unix_time_ms();
  entry_.path = exchange.request().path;
  if (exchange.key() != nullptr) entry_.key_name = exchange.key()->name;
  const ServedModel& model = *prepared.model;
  entry_.model = model.name;
  entry_.base = model.base->name;
  entry_.base_fingerprint = model.base->fingerprint;
  if (model.adapter) entry_.adapter = model.source.string();
  read_body(body, entry_);
}

LoggedRequest::~LoggedRequest() {
  if (open_ > 0) end("cancelled");
}

void LoggedRequest::events(int index, const std::vector<AnswerEvent>& events, const Answer& so_far,
                           const std::vector<std::string>& call_ids) {
  if (open_ == 0) return;
  Choice& choice = answers_[static_cast<size_t>(index)];
  for (const AnswerEvent& event : events) choice.whole.add(event);
  if (choice.call_ids.size() < call_ids.size()) choice.call_ids = call_ids;
  choice.prompt_tokens = so_far.prompt_tokens;
  choice.cached_tokens = so_far.cached_tokens;
  choice.entry.tokens = static_cast<int64_t>(so_far.tokens.size());
  if (choice.entry.tokens > 0) choice.entry.first_token_ms = so_far.first_token_s * 1000;
}

void LoggedRequest::done(int index, const std::vector<AnswerEvent>& last, const Answer& answer,
                         const std::vector<std::string>& call_ids) {
  if (open_ == 0) return;
  events(index, last, answer, call_ids);
  Choice& choice = answers_[static_cast<size_t>(index)];
  choice.entry.finish = finish_name(answer, !choice.whole.calls.empty());
  choice.entry.total_ms = answer.seconds * 1000;
  cancelled_ = cancelled_ || answer.finish == FinishReason::kCancelled;
  if (open_ == 1) end(cancelled_ ? "cancelled" : "200");
  else --open_;
}

void LoggedRequest::failed(const ApiError& error) {
  if (open_ == 0) return;
  entry_.error = error.what();
  end(std::to_string(error.status));
}

void LoggedRequest::end(std::string status) {
  open_ = 0;
  entry_.status = std::move(status);
  entry_.total_ms = seconds_since(start_) * 1000;
  for (size_t i = 0; i < answers_.size(); ++i) {
    Choice& choice = answers_[i];
    if (i % choices_ == 0) {
      entry_.prompt_tokens += choice.prompt_tokens;
      entry_.cached_tokens += choice.cached_tokens;
    }
    entry_.completion_tokens += choice.entry.tokens;
    choice.entry.text = as_sent(choice.whole.text);
    if (!choice.whole.reasoning.empty()) choice.entry.reasoning = as_sent(choice.whole.reasoning);
    if (!choice.whole.calls.empty()) choice.entry.tool_calls = calls_json(choice.whole.calls, choice.call_ids);
    entry_.answers.push_back(std::move(choice.entry));
  }
  log_.add(std::move(entry_));
}

}  // namespace thimble
