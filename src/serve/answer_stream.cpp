#include "serve/answer_stream.h"

#include <algorithm>
#include <optional>

#include "calls/hermes.h"

namespace thimble {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";
constexpr std::string_view kThinkOpen = "<think>", kThinkClose = "</think>";
constexpr std::string_view kHeadName = "\n{\"name\": \"", kHeadArguments = ", \"arguments\": ";

size_t trailing_space(std::string_view text) {
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? text.size() : text.size() - 1 - last;
}

// How many of the last bytes may be the beginning of `tag`, with white space before it, which is nobody's.
size_t held_back(std::string_view text, std::string_view tag) {
  size_t n = std::min(text.size(), tag.size() - 1);
  while (n > 0 && !text.ends_with(tag.substr(0, n))) --n;
  return n + trailing_space(text.substr(0, text.size() - n));
}

// Where a JSON string that begins before `at` ends: at its closing quote; npos where it does not yet.
size_t string_end(std::string_view text, size_t at) {
  for (; at < text.size(); ++at) {
    if (text[at] == '\\') ++at;
    else if (text[at] == '"') return at;
  }
  return std::string_view::npos;
}

}  // namespace

AnswerStream::AnswerStream(const Form& form)
    : form_(form),
      state_(form.plan ? State::kPlan : form.thinking ? State::kThink : State::kBegin),
      may_think_(!form.plan) {}

void AnswerStream::say(AnswerEvent::Kind kind, size_t bytes, std::vector<AnswerEvent>& out) {
  if (bytes == 0) return;
  if (!out.empty() && out.back().kind == kind && kind != AnswerEvent::Kind::kCall)
    out.back().text.append(rest_, 0, bytes);
  else
    out.push_back({kind, rest_.substr(0, bytes)});
  rest_.erase(0, bytes);
}

std::vector<AnswerEvent> AnswerStream::feed(std::string_view piece) {
  rest_ += piece;
  std::vector<AnswerEvent> out;
  while (!rest_.empty() && advance(false, out)) {
  }
  return out;
}

std::vector<AnswerEvent> AnswerStream::finish() {
  std::vector<AnswerEvent> out;
  while (!rest_.empty() && advance(true, out)) {
  }
  return out;
}

// Reads on from the front of rest_; false where more text is needed to decide.
bool AnswerStream::advance(bool last, std::vector<AnswerEvent>& out) {
  using Kind = AnswerEvent::Kind;
  switch (state_) {
    case State::kPlan: {
      const size_t end = rest_.find('\n');
      say(Kind::kReasoning, std::min(end, rest_.size()), out);
      if (end == std::string::npos) return false;
      rest_.erase(0, 1);
      state_ = State::kBegin;
      return true;
    }
    case State::kBegin: {
      const size_t begin = rest_.find_first_not_of(kSpace);
      if (begin == std::string::npos) {
        if (last) rest_.clear();
        return false;
      }
      const std::string_view text = std::string_view(rest_).substr(begin);
      const auto opens = [&](std::string_view tag) { return text.starts_with(tag); };
      const auto may_open = [&](std::string_view tag) { return !last && tag.starts_with(text); };
      if (form_.calls && opens(kCallOpen)) {
        rest_.erase(0, begin + kCallOpen.size());
        state_ = State::kHead;
        return true;
      }
      if (may_think_ && opens(kThinkOpen)) {
        rest_.erase(0, begin + kThinkOpen.size());
        state_ = State::kThink;
        return true;
      }
      if ((form_.calls && may_open(kCallOpen)) || (may_think_ && may_open(kThinkOpen))) return false;
      // White space before a text is nobody's, but for that between calls and text.
      rest_.erase(0, said_text_ ? 0 : begin);
      state_ = State::kText;
      return true;
    }
    case State::kThink: {
      const size_t end = rest_.find(kThinkClose);
      if (end == std::string::npos) {
        say(Kind::kReasoning, rest_.size() - (last ? 0 : held_back(rest_, kThinkClose)), out);
        return false;
      }
      say(Kind::kReasoning, end - trailing_space(std::string_view(rest_).substr(0, end)), out);
      rest_.erase(0, rest_.find(kThinkClose) + kThinkClose.size());
      may_think_ = false;
      state_ = State::kBegin;
      return true;
    }
    case State::kText: return read_text(last, out);
    case State::kHead: return read_head(last);
    case State::kArguments: return read_arguments(out);
    case State::kTail: {
      const size_t end = rest_.find(kCallClose);
      if (end == std::string::npos) {
        if (last) rest_.clear();
        return false;
      }
      rest_.erase(0, end + kCallClose.size());
      may_think_ = false;
      state_ = State::kBegin;
      return true;
    }
    case State::kLoose: return read_loose(last, out);
  }
  return false;
}

bool AnswerStream::read_text(bool last, std::vector<AnswerEvent>& out) {
  said_text_ = true;
  if (!form_.calls) {
    say(AnswerEvent::Kind::kText, rest_.size(), out);
    return false;
  }
  const size_t open = rest_.find(kCallOpen);
  if (open == std::string::npos) {
    say(AnswerEvent::Kind::kText, rest_.size() - (last ? 0 : held_back(rest_, kCallOpen)), out);
    return false;
  }
  say(AnswerEvent::Kind::kText, open - trailing_space(std::string_view(rest_).substr(0, open)), out);
  rest_.erase(0, rest_.find(kCallOpen) + kCallOpen.size());
  state_ = State::kHead;
  return true;
}

// The head of a call in the form that constrained decoding writes, after which its arguments can be told as they come.
// Anything else is read when its block is whole.
bool AnswerStream::read_head(bool last) {
  const std::string_view text = rest_;
  const auto loose = [&] {
    state_ = State::kLoose;
    return true;
  };
  const size_t common = std::min(text.size(), kHeadName.size());
  if (text.substr(0, common) != kHeadName.substr(0, common)) return loose();
  const size_t quote = text.size() > common ? string_end(text, common) : std::string_view::npos;
  if (quote == std::string_view::npos) return last && loose();
  const std::string_view after = text.substr(quote + 1);
  const size_t more = std::min(after.size(), kHeadArguments.size());
  if (after.substr(0, more) != kHeadArguments.substr(0, more)) return loose();
  if (after.size() == more) return last && loose();
  if (after[more] != '{') return loose();
  state_ = State::kArguments;
  depth_ = 0;
  in_string_ = escaped_ = false;
  return true;
}

bool AnswerStream::read_arguments(std::vector<AnswerEvent>& out) {
  if (depth_ == 0) {  // the head is still there
    const size_t quote = string_end(rest_, kHeadName.size());
    const auto name = try_parse_json(std::string_view(rest_).substr(kHeadName.size() - 1, quote - kHeadName.size() + 2),
                                     nullptr);
    if (!name) {
      state_ = State::kLoose;
      return true;
    }
    rest_.erase(0, quote + 1 + kHeadArguments.size());
    out.push_back({AnswerEvent::Kind::kCall, name->get<std::string>()});
  }
  size_t at = 0;
  while (at < rest_.size()) {
    const char c = rest_[at++];
    if (escaped_) escaped_ = false;
    else if (in_string_ && c == '\\') escaped_ = true;
    else if (c == '"') in_string_ = !in_string_;
    else if (!in_string_ && (c == '{' || c == '[')) ++depth_;
    else if (!in_string_ && (c == '}' || c == ']') && --depth_ == 0) {
      state_ = State::kTail;
      break;
    }
  }
  say(AnswerEvent::Kind::kArguments, at, out);
  return state_ == State::kTail;
}

bool AnswerStream::read_loose(bool last, std::vector<AnswerEvent>& out) {
  const size_t end = rest_.find(kCallClose);
  if (end == std::string::npos && !last) return false;
  const size_t bytes = end == std::string::npos ? rest_.size() : end + kCallClose.size();
  const std::string block = std::string(kCallOpen) + rest_.substr(0, bytes);
  rest_.erase(0, bytes);
  const ParsedAnswer parsed = parse_answer(block);
  for (const Call& call : parsed.calls) {
    out.push_back({AnswerEvent::Kind::kCall, call.name});
    out.push_back({AnswerEvent::Kind::kArguments, write_json(call.arguments)});
  }
  if (parsed.calls.empty()) {
    said_text_ = true;
    out.push_back({AnswerEvent::Kind::kText, block});
  }
  may_think_ = false;
  state_ = State::kBegin;
  return true;
}

void WholeAnswer::add(const AnswerEvent& event) {
  switch (event.kind) {
    case AnswerEvent::Kind::kReasoning: reasoning += event.text; break;
    case AnswerEvent::Kind::kText: text += event.text; break;
    case AnswerEvent::Kind::kCall: calls.push_back({event.text, ""}); break;
    case AnswerEvent::Kind::kArguments: calls.back().arguments += event.text; break;
  }
}

}  // namespace thimble
