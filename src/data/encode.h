#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "calls/constraint.h"
#include "calls/hermes.h"
#include "calls/tool.h"
#include "data/job.h"
#include "data/row.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace thimble {

enum class Role : uint8_t { kSystem, kUser, kAssistant, kTool };
inline constexpr size_t kRoles = 4;

// A row as training sees it.
struct EncodedRow {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // [tokens] 1: the model learns to write this token
  std::vector<Role> roles;       // [tokens] whose message the token belongs to
  std::vector<float> weights{};  // [tokens] what each counts where it is trained; empty: 1 each
  int number = 0;                // the row's line in its file
  size_t answer = 0;             // where the answer begins; what is trained before it are earlier turns
  size_t plan_tokens = 0;        // how many of the trained ones, the first, are the plan
};

// How a use case speaks to a model: one place for training, evaluation, chat and server, so that a tuned model is
// asked exactly as it was taught. Calls are written in the Hermes form inside the assistant's message; tools, where
// they are in the prompt, stand in the system message. Control tokens that a message names are text, so that nobody
// forges a turn; only the use case's own system message may hold them.
class PromptStyle {
 public:
  PromptStyle(Tokenizer tokenizer, const Vocabulary& vocabulary, bool tools_in_prompt, bool plan,
              std::optional<std::string> system, std::vector<Tool> tools);

  // As a job asks a model of this vocabulary.
  PromptStyle(const Job& job, const Vocabulary& vocabulary);

  // Prompt and answer are tokenised apart, so that the border between them is that of inference. Throws Error naming
  // the row where the template can't render it.
  EncodedRow encode(const Row& row) const;
  // The same conversation with the row's rejected answer, which it must have. A plan that is not given is made from
  // its calls.
  EncodedRow encode_rejected(const Row& row) const;
  // Everything up to where the answer begins; `shots` stand before the turns as earlier exchanges. A row's own tools
  // replace the use case's.
  std::vector<int32_t> prompt(std::span<const Turn> turns, std::span<const Row> shots = {},
                              const std::vector<Tool>* own_tools = nullptr) const;

  // What the model wrote: its plan, where it writes one, then text or calls.
  ParsedAnswer parse(std::string_view output) const;
  ConstraintOptions constraint() const { return {.plan = plan_}; }

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::vector<Tool>& tools() const { return tools_; }
  bool tools_in_prompt() const { return tools_in_prompt_; }
  bool plan() const { return plan_; }

  // The same model asked for another use case.
  PromptStyle with(bool tools_in_prompt, bool plan, std::optional<std::string> system, std::vector<Tool> tools) const;

 private:
  EncodedRow encode(const Row& row, const std::string& given_plan) const;  // empty: made from the row
  std::string said(std::string_view text, std::span<const Call> calls) const;
  Json messages(std::span<const Turn> turns, std::span<const Row> shots, std::span<const Tool> tools) const;

  Tokenizer tokenizer_;
  ChatTemplate template_;
  bool tools_in_prompt_;
  bool plan_;
  std::optional<std::string> system_;
  std::vector<Tool> tools_;
};

}  // namespace thimble
