#pragma once

#include <string_view>

#include "serve/service.h"

namespace thimble {

// Anthropic's Messages API (docs/clients.md has what is read and what is not).
void messages(Service& service, const Exchange& exchange);              // POST /v1/messages
void count_message_tokens(Service& service, const Exchange& exchange);  // POST /v1/messages/count_tokens

// Errors at these paths have Anthropic's form: {"type": "error", "error": {"type", "message"}, "request_id"}.
bool is_messages_path(std::string_view path);
HttpResponse messages_error_response(const ApiError& error, const std::string& request_id);

}  // namespace thimble
