#include "serve/page.h"

#include <fmt/core.h>

#include <algorithm>

#include "serve/service.h"

namespace thimble {
namespace {

// Scripts, styles and connections are the server's own, and nothing else is allowed: what a model writes can't become
// a part of the page that loads or runs anything.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

bool takes_gzip(const HttpRequest& request) {
  const std::string* accepted = request.header("accept-encoding");
  if (accepted == nullptr) return false;
  const size_t at = accepted->find("gzip");
  return at != std::string::npos && accepted->substr(at, 8) != "gzip;q=0";
}

}  // namespace

void page(Service&, const Exchange& exchange) {
  const HttpRequest& request = exchange.request();
  const auto files = page_files();
  const auto file = std::find_if(files.begin(), files.end(), [&](const PageFile& f) { return f.path == request.path; });
  if (file == files.end()) throw ApiError(404, fmt::format("the page has no file {}", request.path), "", "unknown_url");
  HttpResponse response{.status = 200, .type = std::string(file->type), .body = ""};
  // The browser asks each time whether its copy is still right: another version of the program may stand here tomorrow.
  response.headers = {{"Cache-Control", "no-cache"},
                      {"ETag", std::string(file->etag)},
                      {"Vary", "Accept-Encoding"},
                      {"Content-Security-Policy", kPolicy},
                      {"Referrer-Policy", "no-referrer"}};
  const std::string* known = request.header("if-none-match");
  if (known != nullptr && known->find(file->etag) != std::string::npos) {
    response.status = 304;
  } else if (!file->gzip.empty() && takes_gzip(request)) {
    response.headers.emplace_back("Content-Encoding", "gzip");
    response.body = file->gzip;
  } else {
    response.body = file->plain;
  }
  Exchange(exchange).respond(std::move(response));
}

}  // namespace thimble
