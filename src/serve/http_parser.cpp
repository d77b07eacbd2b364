#include "serve/http_parser.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include "serve/http_message.h"

namespace thimble {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using beast::error_code;
using beast::string_view;

std::string_view view(string_view text) { return {text.data(), text.size()}; }

class RequestReader : public http::basic_parser<true> {
 public:
  HttpRequest request;
  std::string target;
  bool http11 = true;
  bool in_head = true;

 private:
  void on_request_impl(http::verb, string_view method, string_view text, int version, error_code&) override {
    request.method = view(method);
    target = view(text);
    http11 = version >= 11;
  }
  void on_response_impl(int, string_view, int, error_code&) override {}
  void on_field_impl(http::field, string_view name, string_view value, error_code&) override {
    // Fields behind a chunked body are dropped: they must not pass for headers that somebody has checked.
    if (in_head) request.headers.emplace_back(view(name), view(value));
  }
  void on_header_impl(error_code&) override { in_head = false; }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(string_view piece, error_code&) override {
    request.body.append(piece.data(), piece.size());
    return piece.size();
  }
  void on_chunk_header_impl(std::uint64_t, string_view, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, string_view piece, error_code& ec) override {
    return on_body_impl(piece, ec);
  }
  void on_finish_impl(error_code&) override {}
};

}  // namespace

struct HttpParser::Impl {
  explicit Impl(const HttpLimits& l) : limits(l) {
    reader.header_limit(static_cast<std::uint32_t>(std::min<size_t>(l.header_bytes, UINT32_MAX)));
    reader.body_limit(l.body_bytes);
  }

  Step refuse(int with, std::string text) {
    status = with;
    message = std::move(text);
    return Step::kRefused;
  }

  Step refuse_head() {
    return refuse(431, fmt::format("The request's head is longer than {} bytes: send fewer or shorter headers.",
                                   limits.header_bytes));
  }

  Step refuse_body() {
    return refuse(413, fmt::format("The request's body is larger than {} bytes, which this server takes at most.",
                                   limits.body_bytes));
  }

  // What the parser leaves to its users.
  Step check_head() {
    HttpRequest& r = reader.request;
    int hosts = 0;
    for (const auto& [name, value] : r.headers) {
      if (equal_without_case(name, "host")) ++hosts;
      if (!equal_without_case(name, "transfer-encoding")) continue;
      if (!reader.http11) return refuse(400, "An HTTP/1.0 request can't have a Transfer-Encoding.");
      if (!equal_without_case(value, "chunked")) {
        return refuse(501, "The only Transfer-Encoding that this server takes is chunked.");
      }
    }
    if (hosts > 1 || (hosts == 0 && reader.http11)) {
      return refuse(400, "The request must have one Host header.");
    }
    if (!read_target(reader.target, r)) {
      return refuse(400,
                    "The request's target is no path such as /v1/models, or its percent-escapes don't decode to "
                    "UTF-8.");
    }
    for (const auto& [name, value] : r.headers) {
      if (!equal_without_case(name, "expect")) continue;
      if (!equal_without_case(value, "100-continue")) {
        return refuse(417, "The only expectation that this server meets is 100-continue.");
      }
      expects_continue = reader.http11;
    }
    return Step::kMore;
  }

  Step put(std::string_view& bytes) {
    while (!bytes.empty()) {
      error_code ec;
      const bool was_in_head = reader.in_head;
      const size_t taken = reader.put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
      bytes.remove_prefix(taken);
      // The parser's limit is one of what it has not yet taken.
      if (was_in_head) head_bytes += taken;
      if (head_bytes > limits.header_bytes) return refuse_head();
      if (ec == http::error::need_more) {
        // A chunk's extensions and what follows the last chunk are held to the head's limit too.
        if (bytes.size() > limits.header_bytes) return refuse_head();
        return Step::kMore;
      }
      if (ec == http::error::header_limit) return refuse_head();
      if (ec == http::error::body_limit) return refuse_body();
      if (ec == http::error::bad_version) return refuse(505, "This server speaks HTTP/1.1 and HTTP/1.0 only.");
      if (ec) return refuse(400, fmt::format("This is no HTTP/1.1 request: {}.", ec.message()));
      if (was_in_head && !reader.in_head) {
        if (check_head() == Step::kRefused) return Step::kRefused;
        if (!reader.is_done()) return Step::kHead;
      }
      if (reader.is_done()) return Step::kDone;
    }
    return Step::kMore;
  }

  HttpLimits limits;
  RequestReader reader;
  size_t head_bytes = 0;
  bool expects_continue = false;
  int status = 0;
  std::string message;
};

HttpParser::HttpParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
HttpParser::~HttpParser() = default;

HttpParser::Step HttpParser::put(std::string_view& bytes) { return impl_->put(bytes); }
bool HttpParser::started() const { return impl_->reader.got_some(); }
bool HttpParser::http11() const { return impl_->reader.http11; }
bool HttpParser::keep_alive() const { return impl_->reader.is_done() && impl_->reader.keep_alive(); }
bool HttpParser::expects_continue() const { return impl_->expects_continue; }
int HttpParser::status() const { return impl_->status; }
const std::string& HttpParser::message() const { return impl_->message; }
HttpRequest& HttpParser::request() { return impl_->reader.request; }

}  // namespace thimble
