#include "serve/service.h"

#include <fmt/core.h>

#include <random>

namespace thimble {

std::string new_id(std::string_view prefix) {
  static constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  thread_local std::random_device random;
  std::string id(prefix);
  for (int i = 0; i < 24; ++i) id += kLetters[random() % kLetters.size()];
  return id;
}

std::string json_text(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string sse(const Json& value) { return "data: " + json_text(value) + "\n\n"; }

HttpResponse json_response(const Json& value, int status) {
  return {.status = status, .type = "application/json", .body = json_text(value)};
}

Json error_to_json(const ApiError& error) {
  const char* type = error.status == 401   ? "authentication_error"
                     : error.status == 403 ? "permission_error"
                     : error.status == 404 ? "not_found_error"
                     : error.status == 429 ? "rate_limit_error"
                     : error.status >= 500 ? "server_error"
                                           : "invalid_request_error";
  return {{"error",
           {{"message", error.what()},
            {"type", type},
            {"param", error.param.empty() ? Json() : Json(error.param)},
            {"code", error.code.empty() ? Json() : Json(error.code)}}}};
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response = json_response(error_to_json(error), error.status);
  if (error.retry_after > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  return response;
}

void check_model(const Exchange& exchange, const ServedModel& model) {
  const ApiKey* key = exchange.key();
  if (key == nullptr || key->may_use(model.name)) return;
  throw ApiError(403, fmt::format("the key '{}' is not for the model '{}'", key->name, model.name), "model",
                 "model_not_allowed");
}

void check_all_models(const Exchange& exchange, const char* what) {
  const ApiKey* key = exchange.key();
  if (key == nullptr || key->models.empty()) return;
  throw ApiError(403, fmt::format("the key '{}' is for some models only and may not {}", key->name, what), "",
                 "model_not_allowed");
}

void check_room(const Service& service, int more) {
  const int64_t open = service.engines.load().open;
  if (open + more > service.most_open)
    throw ApiError(429,
                   fmt::format("{} answers are being made or wait already, and at most {} may; try again later", open,
                               service.most_open),
                   "", "queue_full", 5);
}

}  // namespace thimble
