#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "serve/http.h"

namespace thimble {

bool equal_without_case(std::string_view a, std::string_view b);  // of ASCII letters

// Percent-decodes; with `plus_is_space` as forms and queries have it. nullopt where an escape is broken, or what comes
// out is no UTF-8 or holds a NUL.
std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_space);

// Reads a request's target (RFC 9112, 3.2) into path and query. The absolute form, http://host/path, sets the Host
// header; an asterisk becomes the path "*". False where it is none of these or does not decode.
bool read_target(std::string_view target, HttpRequest& request);

struct HeadOptions {
  bool http11 = true;
  bool keep_alive = true;
  bool chunked = false;         // a body in chunks follows
  bool length = true;           // the body's length is known: response.body's
  std::string_view request_id;  // empty: none
};

// The status line and the headers with the empty line behind them. A header of the response that holds a control
// character, or that the server writes itself (Content-Length, Transfer-Encoding, Connection, Date), is an assertion.
std::string response_head(const HttpResponse& response, const HeadOptions& options);

// Whether a response's headers can be written: what response_head asserts.
bool can_be_written(const HttpResponse& response);

}  // namespace thimble
