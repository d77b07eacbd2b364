#pragma once

#include "serve/generation.h"

namespace thimble {

// A request to Anthropic's Messages API, and the generation that it comes down to.
struct MessagesRequest {
  GenerationRequest generation;
  bool thinking = false;  // what is reasoned before the answer is shown
};

// Reads system, messages, tools, tool_choice, max_tokens, stop_sequences, output_config, thinking and the sampler's
// options. Throws ApiError 400 naming the field. `counting`: the body of count_tokens, which may lack max_tokens.
MessagesRequest read_messages_request(const Json& body, bool counting);

}  // namespace thimble
