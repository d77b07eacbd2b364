#pragma once

#include "serve/fields.h"
#include "serve/generation.h"

namespace thimble {

// Fields that OpenAI's chat and completions have in common, and those that other servers added to them: temperature,
// top_p, n, seed, stop, penalties, logit_bias, stream, stream_options; top_k, min_p, typical_p, repeat_penalty, dry_*,
// min_tokens, ignore_eos.
void read_sampling(Fields& body, GenerationRequest& out);
// Those of them that say how a token is chosen: all but n, stop, stream and stream_options.
void read_sampler(Fields& body, GenerationRequest& out);

// messages, tools, tool_choice, parallel_tool_calls, response_format. Throws ApiError 400 naming the field; what only
// describes the caller (user, metadata, store, ...) is accepted.
GenerationRequest read_chat_request(const Json& body);

// A list of messages in OpenAI's form as turns; `place` names it.
std::vector<Turn> read_messages(const Json& list, const std::string& place);
std::vector<Tool> read_tools(const Json& list, const std::string& place);
// none, auto, required, or the one function that must be called, in the form of chat or of responses.
void read_tool_choice(const Json& choice, GenerationRequest& out);
// A list of at most 16 texts, none of them empty.
std::vector<std::string> read_stop_list(const Json& list, const std::string& place);

inline constexpr int64_t kMostTokens = 1 << 24;  // that any field may ask for

}  // namespace thimble
