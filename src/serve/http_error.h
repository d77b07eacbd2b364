#pragma once

#include <string>
#include <string_view>

#include "serve/http.h"

namespace thimble {

// An error as OpenAI's clients read it: {"error": {"message", "type", "param", "code"}}, where an empty `param` or
// `code` is null. The type follows from the status: 401 authentication_error, 403 permission_error, 404
// not_found_error, 429 rate_limit_error, any other below 500 invalid_request_error, server_error above. Bytes of the
// message that are no UTF-8 are replaced.
std::string error_body(int status, std::string_view message, std::string_view code = {}, std::string_view param = {});

HttpResponse error_response(int status, std::string_view message, std::string_view code = {},
                            std::string_view param = {});

}  // namespace thimble
