#pragma once

#include "serve/fields.h"
#include "serve/generation.h"

namespace thimble {

// Fields that OpenAI's chat and completions have in common, and those that other servers added to them: temperature,
// top_p, n, seed, stop, penalties, logit_bias, stream, stream_options; top_k, min_p, typical_p, repeat_penalty, dry_*,
// min_tokens, ignore_eos.
void read_sampling(Fields& body, GenerationRequest& out);

// messages, tools, tool_choice, parallel_tool_calls, response_format. Throws ApiError 400 naming the field; what only
// describes the caller (user, metadata, store, ...) is accepted.
GenerationRequest read_chat_request(const Json& body);

// A list of messages in OpenAI's form as turns; `place` names it.
std::vector<Turn> read_messages(const Json& list, const std::string& place);
std::vector<Tool> read_tools(const Json& list, const std::string& place);

}  // namespace thimble
