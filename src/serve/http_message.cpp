#include "serve/http_message.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <ctime>

#include "text/utf8.h"

namespace thimble {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

const std::string* field(const HttpFields& fields, std::string_view name, bool without_case) {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const auto& f) {
    return without_case ? equal_without_case(f.first, name) : f.first == name;
  });
  return found == fields.end() ? nullptr : &found->second;
}

bool read_query(std::string_view text, HttpFields& query) {
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    if (pair.empty()) continue;
    const size_t equals = pair.find('=');
    auto name = percent_decoded(pair.substr(0, equals), true);
    auto value = percent_decoded(equals == pair.npos ? "" : pair.substr(equals + 1), true);
    if (!name || !value) return false;
    query.emplace_back(std::move(*name), std::move(*value));
  }
  return true;
}

const char* reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Status";
  }
}

// RFC 9110, 5.6.7; made once a second, because every answer carries it.
const std::string& http_date() {
  thread_local std::time_t made = -1;
  thread_local std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != made) {
    static constexpr std::array days = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr std::array months = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    std::tm t{};
    gmtime_r(&now, &t);
    text = fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", days.at(t.tm_wday), t.tm_mday, months.at(t.tm_mon),
                       t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
    made = now;
  }
  return text;
}

bool is_clean(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](unsigned char c) { return (c < 32 && c != '\t') || c == 127; });
}

}  // namespace

bool equal_without_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

const std::string* HttpRequest::header(std::string_view name) const { return field(headers, name, true); }
const std::string* HttpRequest::parameter(std::string_view name) const { return field(query, name, false); }

std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (c == '\0') return std::nullopt;
    out.push_back(c);
  }
  if (!is_valid_utf8(out)) return std::nullopt;
  return out;
}

bool read_target(std::string_view target, HttpRequest& request) {
  if (target == "*") {
    request.path.assign(1, '*');
    return true;
  }
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!equal_without_case(target.substr(0, scheme.size()), scheme)) continue;
    target.remove_prefix(scheme.size());
    const std::string host(target.substr(0, target.find_first_of("/?#")));
    if (host.empty()) return false;
    target.remove_prefix(host.size());
    std::erase_if(request.headers, [](const auto& h) { return equal_without_case(h.first, "host"); });
    request.headers.emplace_back("Host", host);
    if (target.empty() || target.front() == '?') {
      request.path.assign(1, '/');
      return target.empty() || read_query(target.substr(1), request.query);
    }
    break;
  }
  if (target.empty() || target.front() != '/' || target.find('#') != target.npos) return false;
  const size_t mark = target.find('?');
  auto path = percent_decoded(target.substr(0, mark), false);
  if (!path) return false;
  request.path = std::move(*path);
  return mark == target.npos || read_query(target.substr(mark + 1), request.query);
}

bool can_be_written(const HttpResponse& response) {
  if (response.status < 200 || response.status > 599 || !is_clean(response.type)) return false;
  return std::all_of(response.headers.begin(), response.headers.end(), [](const auto& h) {
    for (const auto own : {"content-length", "transfer-encoding", "connection", "date", "content-type"}) {
      if (equal_without_case(h.first, own)) return false;
    }
    const bool token = h.first.find_first_of(" \t:\"(),/;<=>?@[\\]{}") == h.first.npos && is_clean(h.first);
    return !h.first.empty() && token && is_clean(h.second);
  });
}

std::string response_head(const HttpResponse& response, const HeadOptions& options) {
  assert(can_be_written(response));
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", response.status, reason(response.status), http_date());
  const auto add = [&](std::string_view name, std::string_view value) {
    head.append(name).append(": ").append(value).append("\r\n");
  };
  const bool has_body = response.status != 204 && response.status != 304;
  if (has_body && !response.type.empty()) {
    add("Content-Type", response.type);
    add("X-Content-Type-Options", "nosniff");
  }
  if (options.chunked) add("Transfer-Encoding", "chunked");
  if (options.length && has_body) add("Content-Length", std::to_string(response.body.size()));
  if (!options.keep_alive) {
    add("Connection", "close");
  } else if (!options.http11) {
    add("Connection", "keep-alive");
  }
  if (!options.request_id.empty()) add("X-Request-Id", options.request_id);
  if (response.type == "text/event-stream") {  // proxies hold events back otherwise
    add("Cache-Control", "no-cache");
    add("X-Accel-Buffering", "no");
  }
  for (const auto& [name, value] : response.headers) add(name, value);
  return head.append("\r\n");
}

}  // namespace thimble
