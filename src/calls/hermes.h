#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calls/call.h"
#include "calls/tool.h"

namespace thimble {

// The Hermes form of tool calls (NousResearch's Hermes 2 Pro, Qwen 2.5 and 3), used where a model has no form of its
// own:
//   <tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>
// one block a call, blocks on lines of their own.
inline constexpr std::string_view kCallOpen = "<tool_call>";
inline constexpr std::string_view kCallClose = "</tool_call>";

std::string render_call(const Call& call);              // one block
std::string render_calls(std::span<const Call> calls);  // blocks joined by a newline
// What the assistant says: the text, the blocks, or both with a newline between.
std::string render_answer(std::string_view text, std::span<const Call> calls);

// What a model answered. Broken output is data, not an error.
struct ParsedAnswer {
  std::vector<Call> calls;            // those that could be read, in order
  std::string plan;                   // the line before the answer, where the model was taught to write one
  std::string text;                   // what stands outside of the blocks, trimmed
  std::vector<std::string> problems;  // one sentence for each block that could not be read

  bool parseable() const { return problems.empty(); }
};

// Never throws on the model's output. Lenient where the meaning is plain: white space, a list of calls in one block (as
// SmolLM2 writes), arguments as a JSON string, no arguments at all, a last block that was not closed.
ParsedAnswer parse_answer(std::string_view text);

// The system prompt that shows tools to a model whose chat template has no place for them: Qwen 2.5's wording, after
// the job's own system text (which may be empty).
std::string hermes_system(std::string_view system, std::span<const Tool> tools);

}  // namespace thimble
