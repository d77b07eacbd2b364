#include "serve/http_error.h"

#include <nlohmann/json.hpp>

namespace thimble {
namespace {

const char* error_type(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 404) return "not_found_error";
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

std::string error_body(int status, std::string_view message, std::string_view code, std::string_view param) {
  const auto text_or_null = [](std::string_view text) {
    return text.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(text);
  };
  const nlohmann::ordered_json body = {{"error",
                                        {{"message", message},
                                         {"type", error_type(status)},
                                         {"param", text_or_null(param)},
                                         {"code", text_or_null(code)}}}};
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

HttpResponse error_response(int status, std::string_view message, std::string_view code, std::string_view param) {
  HttpResponse response;
  response.status = status;
  response.body = error_body(status, message, code, param);
  return response;
}

}  // namespace thimble
