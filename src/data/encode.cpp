#include "data/encode.h"

#include <fmt/core.h>

#include <algorithm>

#include "calls/hermes.h"
#include "core/error.h"

namespace thimble {
namespace {

std::string token_name(const Tokenizer& tokenizer, std::optional<int32_t> id) {
  return id ? tokenizer.token_bytes(*id) : std::string();
}

Role role_of(std::string_view name) {
  if (name == "system") return Role::kSystem;
  if (name == "assistant") return Role::kAssistant;
  if (name == "tool") return Role::kTool;
  return Role::kUser;
}

// What a turn says, calls in the form that the model reads and writes them.
std::string content_of(const Turn& turn) {
  return turn.calls.empty() ? turn.content : render_answer(turn.content, turn.calls);
}

}  // namespace

PromptStyle::PromptStyle(Tokenizer tokenizer, const Vocabulary& vocabulary, bool tools_in_prompt,
                         std::optional<std::string> system, std::vector<Tool> tools)
    : tokenizer_(std::move(tokenizer)),
      template_(vocabulary.chat_template, token_name(tokenizer_, tokenizer_.bos()),
                token_name(tokenizer_, tokenizer_.eos())),
      tools_in_prompt_(tools_in_prompt),
      system_(std::move(system)),
      tools_(std::move(tools)) {}

Json PromptStyle::messages(std::span<const Turn> turns, std::span<const Row> shots, std::span<const Tool> tools) const {
  Json out = Json::array();
  const auto say = [&](std::string_view role, std::string content) {
    out.push_back({{"role", role}, {"content", std::move(content)}});
  };
  // A row's own system message stands in for the use case's.
  std::optional<std::string> system = system_;
  if (!turns.empty() && turns.front().role == "system") {
    system = turns.front().content;
    turns = turns.subspan(1);
  }
  if (tools_in_prompt_ && !tools.empty()) system = hermes_system(system.value_or(""), tools);
  if (system) say("system", *system);
  for (const Row& shot : shots) {
    for (const Turn& turn : shot.turns)
      if (turn.role != "system") say(turn.role, content_of(turn));
    say("assistant", render_answer(shot.answer, shot.calls));
  }
  for (const Turn& turn : turns) say(turn.role, content_of(turn));
  return out;
}

std::vector<int32_t> PromptStyle::prompt(std::span<const Turn> turns, std::span<const Row> shots,
                                         const std::vector<Tool>* own_tools) const {
  const std::string text = template_.render(messages(turns, shots, own_tools != nullptr ? *own_tools : tools_), true);
  return tokenizer_.encode(text, {.add_special = false, .parse_special = true});
}

EncodedRow PromptStyle::encode(const Row& row) const {
  EncodedRow out;
  out.number = row.number;
  Json conversation = messages(row.turns, {}, row.tools ? *row.tools : tools_);
  const std::string asked = template_.render(conversation, true);
  conversation.push_back({{"role", "assistant"},
                          {"content", render_answer(row.answer, arrange_calls(row.calls, row.tools ? *row.tools : tools_))}});
  std::vector<MarkedPiece> pieces;
  try {
    pieces = template_.render_for_training(conversation);
  } catch (const Error& e) {
    throw Error(fmt::format("row {}: {}", row.number, e.what()));
  }
  // Earlier assistant turns were given, not taught: only what comes after the prompt is trained. The prompt is one
  // text to the tokenizer, as it is when the model is asked.
  size_t at = 0;
  std::string prompt;
  std::vector<std::pair<size_t, Role>> borders;  // where in the prompt's text whose part ends
  const auto push = [&](const std::string& text, bool trained, Role role) {
    for (const int32_t token : tokenizer_.encode(text, {.add_special = false, .parse_special = true})) {
      out.tokens.push_back(token);
      out.trained.push_back(trained ? 1 : 0);
      out.roles.push_back(role);
    }
  };
  for (; at < pieces.size() && prompt.size() < asked.size(); ++at) {
    prompt += pieces[at].text;
    borders.emplace_back(prompt.size(), role_of(pieces[at].role));
  }
  if (prompt != asked)
    throw Error(fmt::format("row {}: the model's chat template renders the question otherwise when an answer follows, so "
                            "the model would be trained on another prompt than it is asked with; give the model a "
                            "template that only appends",
                            row.number));
  size_t bytes = 0;
  for (const int32_t token : tokenizer_.encode(prompt, {.add_special = false, .parse_special = true})) {
    const auto border = std::find_if(borders.begin(), borders.end(), [&](const auto& b) { return bytes < b.first; });
    out.tokens.push_back(token);
    out.trained.push_back(0);
    out.roles.push_back(border == borders.end() ? Role::kAssistant : border->second);
    bytes += tokenizer_.token_bytes(token).size();
  }
  for (; at < pieces.size(); ++at) push(pieces[at].text, pieces[at].trained, role_of(pieces[at].role));
  return out;
}

}  // namespace thimble
