#include "data/encode.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "data/plan.h"

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

// Put into control tokens' names that messages hold, so that nobody forges a turn by typing "<|im_end|>". U+FDD0 is a
// noncharacter, which no text for interchange holds; where one does it is lost.
constexpr std::string_view kShield = "\xef\xb7\x90";
constexpr EncodeOptions kRendered{.add_special = false, .parse_special = true, .shield = kShield};

}  // namespace

PromptStyle::PromptStyle(Tokenizer tokenizer, const Vocabulary& vocabulary, bool tools_in_prompt, bool plan,
                         std::optional<std::string> system, std::vector<Tool> tools)
    : tokenizer_(std::move(tokenizer)),
      template_(vocabulary.chat_template, token_name(tokenizer_, tokenizer_.bos()),
                token_name(tokenizer_, tokenizer_.eos())),
      tools_in_prompt_(tools_in_prompt),
      plan_(plan),
      system_(std::move(system)),
      tools_(std::move(tools)) {}

// What a message says, calls in the form that the model reads and writes them.
std::string PromptStyle::said(std::string_view text, std::span<const Call> calls) const {
  const std::string shielded = tokenizer_.shielded(text, kShield);
  return calls.empty() ? shielded : render_answer(shielded, calls);
}

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
      if (turn.role != "system") say(turn.role, said(turn.content, turn.calls));
    say("assistant", said(shot.answer, shot.calls));
  }
  for (const Turn& turn : turns) say(turn.role, said(turn.content, turn.calls));
  return out;
}

std::vector<int32_t> PromptStyle::prompt(std::span<const Turn> turns, std::span<const Row> shots,
                                         const std::vector<Tool>* own_tools) const {
  const std::string text = template_.render(messages(turns, shots, own_tools != nullptr ? *own_tools : tools_), true);
  return tokenizer_.encode(text, kRendered);
}

PromptStyle PromptStyle::with(bool tools_in_prompt, bool plan, std::optional<std::string> system,
                              std::vector<Tool> tools) const {
  PromptStyle other = *this;
  other.tools_in_prompt_ = tools_in_prompt;
  other.plan_ = plan;
  other.system_ = std::move(system);
  other.tools_ = std::move(tools);
  return other;
}

PromptStyle::PromptStyle(const Job& job, const Vocabulary& vocabulary)
    : PromptStyle(Tokenizer::from(vocabulary), vocabulary, job.tools_in_prompt, job.plan, job.system, job.tools) {}

EncodedRow PromptStyle::encode(const Row& row) const { return encode(row, row.plan); }

EncodedRow PromptStyle::encode_rejected(const Row& row) const {
  Row wrong = row;
  wrong.calls = row.rejected->calls;
  wrong.answer = row.rejected->text;
  if (!plan_ && !row.rejected->plan.empty())
    throw Error(fmt::format("row {}: the rejected answer has a plan, but this use case has none; set plan = true, or "
                            "leave it out",
                            row.number));
  if (plan_ && wrong.calls.empty() && row.rejected->plan.empty())
    throw Error(fmt::format("row {}: the rejected answer calls nothing, so its plan can't be made from calls; give it "
                            "a \"plan\"",
                            row.number));
  return encode(wrong, row.rejected->plan);
}

EncodedRow PromptStyle::encode(const Row& row, const std::string& given_plan) const {
  EncodedRow out;
  out.number = row.number;
  Json conversation = messages(row.turns, {}, row.tools ? *row.tools : tools_);
  const std::string asked = template_.render(conversation, true);
  std::string plan;
  std::vector<MarkedPiece> pieces;
  try {
    Row arranged = row;
    const auto& tools = row.tools ? *row.tools : tools_;
    arranged.calls = arrange_calls(row.calls, tools);
    if (plan_) plan = (given_plan.empty() ? plan_of(arranged, tools) : given_plan) + "\n";
    conversation.push_back({{"role", "assistant"}, {"content", plan + said(row.answer, arranged.calls)}});
    pieces = template_.render_for_training(conversation);
  } catch (const Error& e) {
    throw Error(fmt::format("row {}: {}", row.number, e.what()));
  }
  // Earlier assistant turns were given, not taught, but for those with a weight. The prompt is one text to the
  // tokenizer, as it is when the model is asked.
  size_t at = 0;
  std::string prompt;
  struct Border {
    size_t end;  // where in the prompt's text the part ends
    Role role;
    double weight;  // 0: not trained
  };
  std::vector<Border> borders;
  std::vector<double> turn_weights;  // of earlier assistant turns that are not yet rendered, the next one last
  for (auto turn = row.turns.rbegin(); turn != row.turns.rend(); ++turn)
    if (turn->role == "assistant") turn_weights.push_back(turn->weight);
  const bool weighted = row.answer_weight != 1 || std::any_of(turn_weights.begin(), turn_weights.end(),
                                                              [](double w) { return w != 0; });
  const auto push = [&](int32_t token, double weight, Role role) {
    out.tokens.push_back(token);
    out.trained.push_back(weight > 0 ? 1 : 0);
    out.roles.push_back(role);
    if (weighted) out.weights.push_back(static_cast<float>(weight));
  };
  for (; at < pieces.size() && prompt.size() < asked.size(); ++at) {
    prompt += pieces[at].text;
    size_t marks = 0;
    for (size_t i = prompt.find(kShield); i != std::string::npos; i = prompt.find(kShield, i + 1)) ++marks;
    double weight = 0;
    if (pieces[at].trained && !turn_weights.empty()) {
      weight = turn_weights.back();
      turn_weights.pop_back();
    }
    borders.push_back({prompt.size() - marks * kShield.size(), role_of(pieces[at].role), weight});
  }
  if (weighted && !turn_weights.empty())
    throw Error(fmt::format("row {}: the model's chat template does not show every earlier assistant's message, so "
                            "their weights have no place; leave them out",
                            row.number));
  if (prompt != asked)
    throw Error(
        fmt::format("row {}: the model's chat template renders the question otherwise when an answer follows, so "
                    "the model would be trained on another prompt than it is asked with; give the model a "
                    "template that only appends",
                    row.number));
  size_t bytes = 0;
  for (const int32_t token : tokenizer_.encode(prompt, kRendered)) {
    const auto border = std::find_if(borders.begin(), borders.end(), [&](const Border& b) { return bytes < b.end; });
    push(token, border == borders.end() ? 0 : border->weight,
         border == borders.end() ? Role::kAssistant : border->role);
    bytes += tokenizer_.token_bytes(token).size();
  }
  out.answer = out.tokens.size();
  for (; at < pieces.size(); ++at)
    for (const int32_t token : tokenizer_.encode(pieces[at].text, kRendered))
      push(token, pieces[at].trained ? row.answer_weight : 0, role_of(pieces[at].role));
  for (size_t i = out.answer, written = 0; i < out.tokens.size() && written < plan.size(); ++i) {
    if (out.trained[i] == 0) continue;
    written += tokenizer_.token_bytes(out.tokens[i]).size();
    ++out.plan_tokens;
  }
  return out;
}

ParsedAnswer PromptStyle::parse(std::string_view output) const {
  if (!plan_) return parse_answer(output);
  const auto [plan, answer] = split_plan(output);
  ParsedAnswer parsed = parse_answer(answer);
  parsed.plan = plan;
  return parsed;
}

}  // namespace thimble
