#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace thimble {

using Json = nlohmann::ordered_json;
using jinja::Span;

namespace {
constexpr const char* kChatMl =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const Json kNull = nullptr;

std::string role_of(const Json& message) {
  const auto role = message.find("role");
  return role != message.end() && role->is_string() ? role->get<std::string>() : std::string();
}

void check_messages(const Json& messages) {
  if (!messages.is_array()) throw Error("messages must be a list of {\"role\": ..., \"content\": ...}");
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object() || role_of(messages[i]).empty()) {
      throw Error(fmt::format("message {} must be an object with a \"role\"", i + 1));
    }
  }
}

Json first_messages(const Json& messages, size_t count) {
  return Json(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(count));
}

size_t trimmed_size(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return last == std::string_view::npos ? 0 : last + 1;
}

std::string rewrites(const std::string& why, size_t message) {
  return fmt::format(
      "the chat template renders the conversation otherwise once message {} (an assistant turn) {}, so what it adds "
      "can't be told "
      "from what was there; templates that drop earlier reasoning do this: make each such turn the last of its own "
      "row, "
      "or mark the turns with {{% generation %}} in the template",
      message, why);
}
}  // namespace

ChatTemplate::ChatTemplate(std::string source, std::string bos_token, std::string eos_token,
                           std::map<std::string, std::string> more_tokens)
    : template_(jinja::Template::parse(source.empty() ? kChatMl : source)),
      tokens_(std::move(more_tokens)),
      builtin_(source.empty()),
      knows_tool_calls_(source.find("tool_calls") != std::string::npos) {
  tokens_["bos_token"] = std::move(bos_token);
  tokens_["eos_token"] = std::move(eos_token);
  std::erase_if(tokens_, [](const auto& token) { return token.second.empty(); });
}

Json ChatTemplate::context(const Json& messages, const Json& tools, bool add_generation_prompt,
                           const Json& extra) const {
  check_messages(messages);
  if (!tools.is_null() && !tools.empty() && !knows_tools()) {
    throw Error(
        "the model's chat template has no place for tools, and would drop them; write them into the system message");
  }
  if (!knows_tool_calls_) {
    for (size_t i = 0; i < messages.size(); ++i) {
      const auto calls = messages[i].find("tool_calls");
      if (calls != messages[i].end() && !calls->is_null() && !calls->empty()) {
        throw Error(
            fmt::format("message {} has tool_calls, which the model's chat template would drop; write them into "
                        "the content",
                        i + 1));
      }
    }
  }
  Json context = {{"messages", messages},
                  {"tools", tools},
                  {"documents", nullptr},
                  {"add_generation_prompt", add_generation_prompt}};
  for (const auto& [name, token] : tokens_) context[name] = token;
  if (!extra.is_null()) {
    if (!extra.is_object()) throw Error("a chat template's extra variables must be an object");
    for (const auto& [name, value] : extra.items()) context[name] = value;
  }
  return context;
}

std::string ChatTemplate::render(const Json& messages, const Json& tools, bool add_generation_prompt,
                                 const Json& extra) const {
  return template_.render(context(messages, tools, add_generation_prompt, extra));
}

std::string ChatTemplate::render(const Json& messages, bool add_generation_prompt) const {
  return render(messages, kNull, add_generation_prompt, kNull);
}

namespace {
// Renders the first messages of one conversation.
class Prefixes {
 public:
  Prefixes(const ChatTemplate& chat, const Json& messages, const Json& tools, const Json& extra, std::string full)
      : chat_(chat), messages_(messages), tools_(tools), extra_(extra), full_(std::move(full)) {}

  const std::string& full() const { return full_; }
  size_t size() const { return messages_.size(); }
  const Json& message(size_t i) const { return messages_[i]; }

  std::string render(size_t count, bool prompt) const {
    if (count == messages_.size() && !prompt) return full_;
    return chat_.render(first_messages(messages_, count), tools_, prompt, extra_);
  }
  // Where the first messages end in the full text; npos where they render otherwise alone, or not at all.
  size_t end_of(size_t count, bool prompt) const {
    try {
      const std::string text = render(count, prompt);
      return full_.starts_with(text) ? text.size() : std::string::npos;
    } catch (const Error&) {
      return std::string::npos;
    }
  }
  // Text that a template puts before the first user message (a default system message, a tool list): what one
  // rendering of the message has beyond what a second one adds.
  size_t preamble_size() const {
    try {
      const std::string once = render(1, false);
      const Json twice = Json::array({messages_[0], messages_[0]});
      const std::string both = chat_.render(twice, tools_, false, extra_);
      if (!both.starts_with(once)) return 0;
      const std::string_view added = std::string_view(both).substr(once.size());
      return !added.empty() && once.ends_with(added) ? once.size() - added.size() : 0;
    } catch (const Error&) {
      return 0;
    }
  }

 private:
  const ChatTemplate& chat_;
  const Json& messages_;
  const Json& tools_;
  const Json& extra_;
  std::string full_;
};

// The assistant turns, by comparing what more and more messages render to.
std::vector<Span> spans_by_prefix(const Prefixes& prefixes) {
  std::vector<Span> spans;
  const std::string& full = prefixes.full();
  for (size_t i = 0; i < prefixes.size(); ++i) {
    if (role_of(prefixes.message(i)) != "assistant") continue;
    const auto part = [&](size_t count, bool generation_prompt) {
      try {
        return prefixes.render(count, generation_prompt);
      } catch (const Error& error) {
        throw Error(
            fmt::format("the chat template can't render the conversation up to message {} (an assistant turn), which "
                        "is needed to see what is trained: {}",
                        i + 1, error.what()));
      }
    };
    const std::string prompt = part(i, true);
    const std::string turn = part(i + 1, false);
    if (!turn.starts_with(prompt)) throw Error(rewrites("answers the generation prompt", i + 1));
    if (!full.starts_with(turn)) throw Error(rewrites("is not the last", i + 1));
    if (!spans.empty() && prompt.size() < spans.back().end) throw Error(rewrites("follows another", i + 1));
    const std::string_view added = std::string_view(turn).substr(prompt.size());
    const std::string_view trained = added.substr(0, trimmed_size(added));
    const auto content = prefixes.message(i).find("content");
    if (content != prefixes.message(i).end() && content->is_string()) {
      const std::string& said = content->get_ref<const std::string&>();
      const std::string_view end = std::string_view(said).substr(0, trimmed_size(said));
      if (!end.empty() && trained.ends_with(end)) {
        throw Error(fmt::format(
            "the chat template writes no end-of-turn token behind message {} (an assistant turn), so a model "
            "trained on it would never learn to stop; add the token to the template",
            i + 1));
      }
    }
    if (trained.empty()) {
      throw Error(fmt::format("the chat template renders nothing for message {} (an assistant turn)", i + 1));
    }
    spans.push_back({prompt.size(), prompt.size() + trained.size()});
  }
  return spans;
}

// Marks end with the end-of-turn token, whether the template's author put it, or more, inside them or not.
void fit_to_end_of_turn(const std::string& full, const std::map<std::string, std::string>& tokens, Span& span) {
  const auto found = tokens.find("eos_token");
  if (found == tokens.end()) return;
  const std::string& eos = found->second;
  const std::string_view marked = std::string_view(full).substr(span.begin, span.end - span.begin);
  const size_t size = trimmed_size(marked);
  if (marked.substr(0, size).ends_with(eos)) {
    span.end = span.begin + size;
  } else if (full.compare(span.end, eos.size(), eos) == 0) {
    span.end += eos.size();
  }
}

struct Border {
  size_t end;
  std::string role;
};

// Where messages end, with their roles. A message whose end can't be seen is counted to the next one that can.
std::vector<Border> message_borders(const Prefixes& prefixes) {
  std::vector<Border> borders;
  size_t at = 0;
  const auto add = [&](size_t end, const std::string& role) {
    if (end == std::string::npos || end <= at) return;
    borders.push_back({end, role});
    at = end;
  };
  for (size_t i = 0; i < prefixes.size(); ++i) {
    const std::string role = role_of(prefixes.message(i));
    if (i == 0 && role != "system") add(prefixes.preamble_size(), "system");
    if (role == "assistant") {
      // What stands before the generation prompt was the message before; the prompt itself is the assistant's.
      add(prefixes.end_of(i, false), i > 0 ? role_of(prefixes.message(i - 1)) : role);
    }
    add(prefixes.end_of(i + 1, false), role);
  }
  if (at < prefixes.full().size()) {
    borders.push_back(
        {prefixes.full().size(), prefixes.size() > 0 ? role_of(prefixes.message(prefixes.size() - 1)) : ""});
  }
  return borders;
}

std::vector<MarkedPiece> cut(const std::string& full, const std::vector<Border>& borders,
                             const std::vector<Span>& spans) {
  std::vector<size_t> cuts = {full.size()};
  for (const auto& border : borders) cuts.push_back(border.end);
  for (const auto& span : spans) cuts.insert(cuts.end(), {span.begin, span.end});
  std::sort(cuts.begin(), cuts.end());
  std::vector<MarkedPiece> pieces;
  size_t at = 0;
  for (const size_t end : cuts) {
    if (end <= at) continue;
    const bool trained =
        std::any_of(spans.begin(), spans.end(), [&](const Span& s) { return s.begin <= at && at < s.end; });
    const auto border = std::find_if(borders.begin(), borders.end(), [&](const Border& b) { return at < b.end; });
    pieces.push_back(
        {full.substr(at, end - at), trained, trained || border == borders.end() ? "assistant" : border->role});
    at = end;
  }
  return pieces;
}
}  // namespace

std::vector<MarkedPiece> ChatTemplate::render_for_training(const Json& messages, const Json& tools,
                                                           const Json& extra) const {
  const jinja::RenderResult marked = template_.render_marked(context(messages, tools, false, extra));
  const Prefixes prefixes(*this, messages, tools, extra, marked.text);
  std::vector<Span> spans = marked.generated;
  if (template_.has_generation_blocks()) {
    const bool answered =
        std::any_of(messages.begin(), messages.end(), [](const Json& m) { return role_of(m) == "assistant"; });
    if (spans.empty() && answered) {
      throw Error(
          "the chat template's {% generation %} blocks mark nothing of this conversation, so nothing would be trained");
    }
    for (auto& span : spans) fit_to_end_of_turn(marked.text, tokens_, span);
  } else {
    spans = spans_by_prefix(prefixes);
  }
  return cut(marked.text, message_borders(prefixes), spans);
}

std::vector<MarkedPiece> ChatTemplate::render_for_training(const Json& messages) const {
  return render_for_training(messages, kNull, kNull);
}

}  // namespace thimble
