#pragma once

#include <string>

#include "serve/generation.h"
#include "serve/responses_api_store.h"

namespace thimble {

// A request to OpenAI's Responses API, and the generation that it comes down to.
struct ResponsesRequest {
  GenerationRequest generation;
  Json items;  // the whole conversation, that of previous_response_id first
  Json echo;   // the fields of the response that repeat the request
  bool store = true;
};

// `owner`: the name of the key that asks. Throws ApiError 400 naming the field: what only OpenAI's machines can do
// (background, conversation, prompt, tools that are no functions) is refused by name.
ResponsesRequest read_responses_request(const Json& body, const ResponseStore& store, const std::string& owner = "");

}  // namespace thimble
