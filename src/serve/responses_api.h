#pragma once

#include "serve/service.h"

namespace thimble {

// OpenAI's Responses API (docs/clients.md has what is read and what is not).
void responses(Service& service, const Exchange& exchange);  // POST /v1/responses, /v1/responses/input_tokens
// GET /v1/responses/ID, /v1/responses/ID/input_items; DELETE /v1/responses/ID
void stored_response(Service& service, const Exchange& exchange);

}  // namespace thimble
