#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "core/clock.h"
#include "serve/contents_log.h"
#include "serve/energy.h"
#include "serve/engine_thread.h"
#include "serve/generation.h"
#include "serve/guard.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/model_shelf.h"
#include "serve/responses_api_store.h"

namespace thimble {

// What the handlers of all APIs share.
struct Service {
  ResponseStore responses;  // outlives the engine, which ends answers into it
  std::unique_ptr<ContentsLog> contents;  // so does this; nullptr: contents are not stored
  Metrics metrics;  // before the engines, which tell it of what they end
  EnergyMeter energy;
  int64_t started = unix_time();
  EngineThread engines;  // first in, last out: what the shelf lets go of tells it so
  ModelShelf shelf;
  GenerationLimits limits;
  int most_open = 256;  // answers that are being made or wait; more are refused with 429
  std::atomic<bool> draining{false};  // the server ends: /ready says so
  Guard* guard = nullptr;  // outlives it; nullptr: everybody may do everything

  explicit Service(ShelfOptions options) : shelf(engines, std::move(options)) {}
};

std::string new_id(std::string_view prefix);  // "chatcmpl-" and 24 random letters and digits

HttpResponse json_response(const Json& value, int status = 200);
HttpResponse error_response(const ApiError& error);  // OpenAI's form
Json error_to_json(const ApiError& error);
std::string json_text(const Json& value);                // bytes that are not UTF-8 are replaced
std::string sse(const Json& value);                      // one event: "data: ...\n\n"

// Refuses with 429 where too much is waiting already.
void check_room(const Service& service, int more);

// Throws ApiError 403 where the request's key is not for this model.
void check_model(const Exchange& exchange, const ServedModel& model);
// The same for what concerns every model: a key that is for some models may not do it.
void check_all_models(const Exchange& exchange, const char* what);

// The handlers; each answers the exchange, now or later, or throws ApiError or Error. They may block for as long as
// reading the request takes.
void chat_completions(Service& service, const Exchange& exchange);
void completions(Service& service, const Exchange& exchange);
void models(Service& service, const Exchange& exchange);       // GET /v1/models, /v1/models/NAME
void tokenize(Service& service, const Exchange& exchange);
void detokenize(Service& service, const Exchange& exchange);
void apply_template(Service& service, const Exchange& exchange);
void adapters(Service& service, const Exchange& exchange);     // POST /v1/adapters, DELETE /v1/adapters/NAME
void metrics(Service& service, const Exchange& exchange);      // GET /metrics
void page(Service& service, const Exchange& exchange);         // the web page's files (page.h)
void status(Service& service, const Exchange& exchange);       // GET /thimble/status
void jobs(Service& service, const Exchange& exchange);         // GET /thimble/jobs/NAME, and its runs' files
void check_calls(Service& service, const Exchange& exchange);  // POST /thimble/check-calls: against tools' schemas

}  // namespace thimble
