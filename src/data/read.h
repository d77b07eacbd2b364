#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "data/row.h"

namespace thimble {

// Rows of a JSONL file, one JSON object a line, in either form:
//   conversational (OpenAI, TRL): {"messages": [...], "tools"?: [...], "id"?, "kind"?, "missing"?}; the last message is
//   the
//     assistant's, which is the gold answer; arguments of tool calls are an object or its JSON text
//   short: {"query": "...", "calls": [{"name", "arguments"}], "answer"?, "id"?, "kind"?, "missing"?}
// Both may have a "weight" above 0, what the row counts beside others (1), and an assistant's message one from 0 to
// 1, as OpenAI's files have it: what learning it counts. The answer's is 1 where it is not given, earlier ones' is 0.
// For preference tuning both may carry "rejected": {"calls"?, "answer"?, "plan"?}, a wrong answer to the same, or
// "label": false where their own answer is not wanted. TRL's forms are read too: "prompt" (or "messages") with "chosen"
// and "rejected" as lists of messages, either with or without the prompt; "prompt" with "completion" and "label".
// Blank lines are skipped. Unknown keys, wrong types, duplicate keys and broken UTF-8 or JSON throw Error that names
// file and row. Whether a row makes sense for the use case is check.h's question.
std::vector<Row> read_rows(const std::filesystem::path& file);
std::vector<Row> parse_rows(std::string_view text, std::string_view where);

}  // namespace thimble
