#include "serve/server.h"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <memory>

#include "core/error.h"
#include "serve/messages_api.h"
#include "serve/responses_api.h"

namespace thimble {
namespace {

struct Route {
  std::string_view method, path;
  void (*handler)(Service&, const Exchange&);
  bool names_something = false;  // the path goes on: /v1/models/NAME
  bool generates = false;        // is counted when its answer is there (reply.h)
};

void health(Service&, const Exchange& exchange) { Exchange(exchange).respond(json_response({{"status", "ok"}})); }

void ready(Service& service, const Exchange& exchange) {
  if (service.draining) throw ApiError(503, "the server is ending and takes no more; ask another", "", "draining");
  health(service, exchange);
}

constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", chat_completions, false, true},
    {"POST", "/v1/completions", completions, false, true},
    {"POST", "/v1/responses", responses, true, true},
    {"GET", "/v1/responses", stored_response, true},
    {"DELETE", "/v1/responses", stored_response, true},
    {"POST", "/v1/messages", messages, false, true},
    {"POST", "/v1/messages/count_tokens", count_message_tokens},
    {"GET", "/v1/models", models, true},
    {"POST", "/v1/adapters", adapters},
    {"DELETE", "/v1/adapters", adapters, true},
    {"POST", "/tokenize", tokenize},
    {"POST", "/detokenize", detokenize},
    {"POST", "/apply-template", apply_template},
    {"GET", "/metrics", metrics},
    {"GET", "/", page},
    {"GET", "/page.js", page},
    {"GET", "/page.css", page},
    {"GET", "/icon.svg", page},
    {"GET", "/thimble/status", status},
    {"GET", "/thimble/jobs", jobs, true},
    {"POST", "/thimble/check-calls", check_calls},
    {"GET", "/health", health},
    {"GET", "/ready", ready},
};

bool matches(const Route& route, std::string_view path) {
  if (path == route.path) return true;
  return route.names_something && path.starts_with(route.path) && path[route.path.size()] == '/';
}

const Route& route_of(const HttpRequest& request) {
  std::string allowed;
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  for (const Route& route : kRoutes) {
    if (!matches(route, request.path)) continue;
    if (route.method == method) return route;
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", route.method);
  }
  if (allowed.empty())
    throw ApiError(404, fmt::format("there is nothing at {} (docs/serve.md lists what there is)", request.path), "",
                   "unknown_url");
  throw ApiError(405, fmt::format("{} is not allowed at {}; allowed: {}", request.method, request.path, allowed), "",
                 "method_not_allowed");
}

// In the form of the API whose path it is.
HttpResponse error_response(const ApiError& error, const HttpRequest& request) {
  return is_messages_path(request.path) ? messages_error_response(error, request.id) : error_response(error);
}

HttpResponse refusal(const Admission& admission, const HttpRequest& request) {
  const HttpResponse& refused = *admission.refusal;
  if (refused.status < 400 || !is_messages_path(request.path)) return refused;
  const Json error = parse_json(refused.body, "the guard's answer").at("error");
  const ApiError same(refused.status, error.at("message").get<std::string>());
  HttpResponse out = messages_error_response(same, request.id);
  out.headers.insert(out.headers.end(), refused.headers.begin(), refused.headers.end());
  return out;
}

GuardOptions guard_options(const ServerOptions& options) {
  check_exposure(options.http.address, !options.guard.keys_file.empty(), options.no_keys);
  GuardOptions guard = options.guard;
  guard.address = options.http.address;
  return guard;
}

// What was asked and answered is nobody's business but the client's; that it was, is the operator's. Paths come from
// outside: a line stays a line.
std::string log_line(const HttpOutcome& outcome) {
  std::string path;
  for (const char c : outcome.request.path.substr(0, 200)) path += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return fmt::format("{:%H:%M:%S} {} {} {}  {:.2f} s{}{}{}{}", fmt::localtime(std::time(nullptr)), outcome.status,
                     outcome.request.method, path, outcome.seconds, outcome.note.empty() ? "" : "  ", outcome.note,
                     outcome.key != nullptr ? "  " : "", outcome.key != nullptr ? outcome.key->name : "");
}

bool worth_a_line(const HttpOutcome& outcome) {
  const std::string& path = outcome.request.path;
  return outcome.status != 200 || (path != "/health" && path != "/ready" && path != "/metrics");
}

}  // namespace

Server::Server(ServerOptions options, std::function<void(const std::string&)> tell)
    : options_(std::move(options)),
      tell_(std::move(tell)),
      guard_(guard_options(options_)),
      service_(options_.shelf),
      http_(http_options(), [this](Exchange exchange) { handle(std::move(exchange)); }),
      workers_(2) {
  service_.limits = options_.limits;
  service_.most_open = options_.most_open;
  service_.guard = &guard_;
  if (!options_.contents.file.empty()) {
    service_.contents = std::make_unique<ContentsLog>(options_.contents, tell_);
    tell_(service_.contents->described());
  }
  for (const std::string& model : options_.models) service_.shelf.open(model);
  for (const auto& [name, path] : options_.adapters) service_.shelf.open_adapter(name, path);
}

HttpOptions Server::http_options() const {
  HttpOptions http = options_.http;
  http.report = tell_;
  if (options_.log_requests)
    http.ended = [tell = tell_](const HttpOutcome& outcome) {
      if (worth_a_line(outcome)) tell(log_line(outcome));
    };
  return http;
}

void Server::handle(Exchange exchange) {
  Admission admission = guard_.admit(exchange.request());
  exchange.add_headers(admission.headers);
  if (admission.refusal) {
    service_.metrics.request("guard", admission.refusal->status);
    return exchange.respond(refusal(admission, exchange.request()));
  }
  exchange.set_key(std::move(admission.key));
  workers_.post([this, exchange]() mutable {
    std::string_view endpoint = "none";  // a path that is no route's could be anything
    const auto refuse = [&](const ApiError& error) {
      service_.metrics.request(endpoint, error.status);
      exchange.respond(error_response(error, exchange.request()));
    };
    try {
      const Route& route = route_of(exchange.request());
      endpoint = route.path;
      route.handler(service_, exchange);
      if (!route.generates) service_.metrics.request(endpoint, 200);
    } catch (const ApiError& e) {
      refuse(e);
    } catch (const Error& e) {
      refuse(ApiError(400, e.what()));
    } catch (const std::exception& e) {
      tell_(fmt::format("{} {}: {}", exchange.request().method, exchange.request().path, e.what()));
      refuse(ApiError(500, "the server failed; its log says more"));
    }
  });
}

void Server::watch_jobs() {
  http_.after(std::chrono::seconds(2), [this] {
    if (service_.draining) return;
    workers_.post([this] {
      for (const std::string& line : service_.shelf.refresh()) tell_(line);
      http_.post([this] { watch_jobs(); });
    });
  });
}

void Server::run() {
  watch_jobs();
  http_.run();
  service_.engines.cancel_all();
}

void Server::drain() {
  if (service_.draining.exchange(true)) return;
  const auto time = [](double seconds) { return std::chrono::milliseconds(std::lround(seconds * 1000)); };
  http_.drain(time(options_.drain_wait_s));
  http_.post([this, time] { http_.after(time(options_.drain_s), [this] { http_.stop(); }); });
}

}  // namespace thimble
