#include "serve/guard.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "serve/http_error.h"
#include "serve/http_message.h"

namespace thimble {
namespace {

std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) out.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  return out;
}

// "Example.org.:8080" is example.org, "[::1]:80" is ::1; empty where it is no host.
std::string host_name(std::string_view host) {
  std::string_view name = host, port;
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    if (end == host.npos) return {};
    name = host.substr(1, end - 1);
    if (!host.substr(end + 1).empty() && host[end + 1] != ':') return {};
    port = host.substr(std::min(host.size(), end + 2));
  } else if (const size_t colon = host.find(':'); colon != host.npos) {
    name = host.substr(0, colon);
    port = host.substr(colon + 1);
  }
  if (port.find_first_not_of("0123456789") != port.npos) return {};
  if (name.ends_with('.')) name.remove_suffix(1);
  return lower(name);
}

bool is_ip(const std::string& name) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, name.c_str(), bytes) == 1 || inet_pton(AF_INET6, name.c_str(), bytes) == 1;
}

bool is_any_address(std::string_view address) { return address == "0.0.0.0" || address == "::" || address == "[::]"; }

bool host_allowed(const std::string& host, const GuardPolicy& policy) {
  const std::string name = host_name(host);
  if (name.empty()) return false;
  if (name == "localhost" || name == "127.0.0.1" || name == "::1") return true;
  const bool bare_ipv6 = policy.address.find(':') != policy.address.npos && !policy.address.starts_with('[');
  if (name == host_name(bare_ipv6 ? fmt::format("[{}]", policy.address) : policy.address)) return true;
  // Listening at all addresses, it is asked for by each. None of them can be made to point elsewhere, as names can.
  if (is_any_address(policy.address) && is_ip(name)) return true;
  return std::any_of(policy.hosts.begin(), policy.hosts.end(),
                     [&](const std::string& allowed) { return host_name(allowed) == name; });
}

// "https://Example.org:443" is {https, example.org}: the default port is left out.
struct SchemeAndHost {
  std::string scheme, host;
  bool operator==(const SchemeAndHost&) const = default;
};

SchemeAndHost read_origin(std::string_view origin) {
  const size_t mark = origin.find("://");
  if (mark == origin.npos) return {};
  std::string scheme = lower(origin.substr(0, mark));
  std::string_view host = origin.substr(mark + 3);
  const std::string_view usual = scheme == "https" ? ":443" : ":80";
  if (host.ends_with(usual)) host.remove_suffix(usual.size());
  return {std::move(scheme), lower(host)};
}

bool own_origin(const std::string& origin, const HttpRequest& request, const std::string& host) {
  const SchemeAndHost page = read_origin(origin);
  if (page.host.empty()) return false;
  // A proxy in front may speak TLS where this server does not.
  for (const std::string scheme : {"https", "http"}) {
    if (scheme == "http" && request.secure) continue;
    if (page == read_origin(fmt::format("{}://{}", scheme, host))) return true;
  }
  return false;
}

bool origin_allowed(const std::string& origin, const GuardPolicy& policy) {
  return std::any_of(policy.origins.begin(), policy.origins.end(), [&](const std::string& allowed) {
    return allowed == "*" || (origin != "null" && read_origin(allowed) == read_origin(origin));
  });
}

HttpFields cors_headers(const std::string& origin) {
  return {{"Access-Control-Allow-Origin", origin},
          {"Access-Control-Expose-Headers",
           "X-Request-Id, Retry-After, X-RateLimit-Limit-Requests, "
           "X-RateLimit-Remaining-Requests"},
          {"Vary", "Origin"}};
}

HttpResponse preflight_answer(const HttpRequest& request, bool cross_origin) {
  HttpResponse answer{.status = 204, .type = ""};
  static constexpr const char* kMethods = "GET, HEAD, POST, DELETE, OPTIONS";
  if (!cross_origin || request.header("access-control-request-method") == nullptr) {
    answer.headers.emplace_back("Allow", kMethods);
    return answer;
  }
  answer.headers.emplace_back("Access-Control-Allow-Methods", kMethods);
  // The origin is trusted: so are the headers that its scripts, such as OpenAI's, like to send.
  if (const std::string* headers = request.header("access-control-request-headers")) {
    answer.headers.emplace_back("Access-Control-Allow-Headers", *headers);
  }
  if (request.header("access-control-request-private-network") != nullptr) {
    answer.headers.emplace_back("Access-Control-Allow-Private-Network", "true");
  }
  answer.headers.emplace_back("Access-Control-Max-Age", "600");
  return answer;
}

// The key that a request shows; empty where it shows none.
std::string_view shown_key(const HttpRequest& request) {
  if (const std::string* authorization = request.header("authorization")) {
    static constexpr std::string_view kBearer = "bearer ";
    const std::string_view text = *authorization;
    if (!equal_without_case(text.substr(0, kBearer.size()), kBearer)) return {};
    const size_t from = text.find_first_not_of(' ', kBearer.size());
    return from == text.npos ? std::string_view() : text.substr(from);
  }
  const std::string* key = request.header("x-api-key");
  return key == nullptr ? std::string_view() : std::string_view(*key);
}

HttpResponse unauthorized(std::string_view message, std::string_view code) {
  HttpResponse answer = error_response(401, message, code);
  answer.headers.emplace_back("WWW-Authenticate", "Bearer");
  return answer;
}

}  // namespace

Admission admit(const HttpRequest& request, const GuardPolicy& policy) {
  Admission out;
  const std::string* host = request.header("host");
  // Only HTTP/1.0 comes without, which no browser speaks.
  if (host != nullptr && !host_allowed(*host, policy)) {
    out.refusal = error_response(403,
                                 fmt::format("This server does not answer to the name {}: start it with "
                                             "--allow-host to let it.",
                                             *host),
                                 "host_not_allowed");
    return out;
  }
  bool cross_origin = false;
  if (const std::string* origin = request.header("origin")) {
    cross_origin = host == nullptr || !own_origin(*origin, request, *host);
    if (cross_origin && !origin_allowed(*origin, policy)) {
      out.refusal = error_response(403,
                                   fmt::format("Pages of {} may not use this server: start it with --allow-origin "
                                               "to let them.",
                                               *origin),
                                   "origin_not_allowed");
      return out;
    }
    if (cross_origin) out.headers = cors_headers(*origin);
  }
  if (request.method == "OPTIONS") {
    out.refusal = preflight_answer(request, cross_origin);
    return out;
  }
  const auto& open = policy.open_paths;
  if (!policy.needs_key || std::find(open.begin(), open.end(), request.path) != open.end()) return out;
  const std::string_view key = shown_key(request);
  if (key.empty()) {
    out.refusal =
        unauthorized("This server needs an API key: send it as Authorization: Bearer KEY.", "missing_api_key");
    return out;
  }
  out.key = find_key(policy.keys, key);
  if (out.key == nullptr) out.refusal = unauthorized("This API key is not known here.", "invalid_api_key");
  return out;
}

bool only_this_machine(std::string_view address) {
  if (address.starts_with('/')) return true;
  const std::string name = lower(address);
  unsigned char bytes[16];
  if (inet_pton(AF_INET, name.c_str(), bytes) == 1) return bytes[0] == 127;
  return name == "localhost" || name == "::1" || name == "[::1]";
}

void check_exposure(std::string_view address, bool needs_key, bool said_so) {
  if (only_this_machine(address) || needs_key || said_so) return;
  throw Error(
      fmt::format("at {} other machines reach the server, and no key is asked for: make one with `thimble keys "
                  "add NAME`, listen at 127.0.0.1, or say --no-keys to serve everybody",
                  address));
}

Guard::Guard(GuardOptions options) : options_(std::move(options)) {
  policy_.address = options_.address;
  policy_.hosts = options_.hosts;
  policy_.origins = options_.origins;
  for (const std::string& origin : options_.origins) {
    const SchemeAndHost read = read_origin(origin);
    if (origin != "*" && (read.host.empty() || read.host.find_first_of("/?#*") != read.host.npos)) {
      throw Error(
          fmt::format("--allow-origin {}: an origin is a scheme and a host, such as https://chat.example.org, or "
                      "* for any",
                      origin));
    }
  }
  for (const std::string& host : options_.hosts) {
    if (host_name(host).empty() || host.find('/') != host.npos) {
      throw Error(fmt::format("--allow-host {}: a host is a name such as ai.example.org", host));
    }
  }
  policy_.needs_key = !options_.keys_file.empty();
  if (!policy_.needs_key) return;
  policy_.keys = read_keys(options_.keys_file);
  std::error_code ignored;
  keys_time_ = std::filesystem::last_write_time(options_.keys_file, ignored);
}

void Guard::read_keys_again() {
  const auto now = std::chrono::steady_clock::now();
  if (!policy_.needs_key || now - looked_ < std::chrono::seconds(1)) return;
  looked_ = now;
  std::error_code failed;
  const auto time = std::filesystem::last_write_time(options_.keys_file, failed);
  if (!failed && time == keys_time_ && keys_error_.empty()) return;
  try {
    policy_.keys = read_keys(options_.keys_file);
    keys_time_ = time;
    keys_error_.clear();
    limits_.forget_others(policy_.keys);
  } catch (const Error& e) {
    keys_error_ = e.what();
    policy_.keys.clear();
  }
}

Admission Guard::admit(const HttpRequest& request) {
  const std::scoped_lock lock(mutex_);
  read_keys_again();
  Admission out = thimble::admit(request, policy_);
  if (!keys_error_.empty() && out.refusal && out.refusal->status == 401) {
    out.refusal =
        error_response(503, "The server's keys can't be read: its owner must mend their file.", "keys_unreadable");
  }
  if (out.refusal || out.key == nullptr) return out;
  const auto now = std::chrono::steady_clock::now();
  if (const auto wait = limits_.request(*out.key, now)) {
    out.refusal = error_response(
        429, fmt::format("The key {} has used up its limit for now: try again in {} s.", out.key->name, *wait),
        "rate_limit_exceeded");
    out.refusal->headers.emplace_back("Retry-After", std::to_string(*wait));
  }
  if (out.key->requests_per_minute > 0) {
    out.headers.emplace_back("X-RateLimit-Limit-Requests", std::to_string(out.key->requests_per_minute));
    out.headers.emplace_back("X-RateLimit-Remaining-Requests", std::to_string(limits_.requests_left(*out.key, now)));
  }
  return out;
}

void Guard::count_tokens(const ApiKey* key, int64_t count) {
  if (key == nullptr) return;
  const std::scoped_lock lock(mutex_);
  limits_.tokens(*key, count, std::chrono::steady_clock::now());
}

}  // namespace thimble
