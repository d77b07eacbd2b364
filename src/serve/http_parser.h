#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "serve/http.h"
#include "serve/http_limits.h"

namespace thimble {

// Reads one HTTP/1.1 request (RFC 9112) from bytes that come in pieces of any size. Stricter than many: two answers to
// where a body ends (a Content-Length beside chunks, a coding other than chunked, a bare line feed) is no request, so
// that no proxy in front can be of another opinion than this server.
class HttpParser {
 public:
  explicit HttpParser(const HttpLimits& limits);
  ~HttpParser();

  enum class Step {
    kMore,     // all that could be read was; the rest of the bytes comes again, with more behind it
    kHead,     // the head is whole, and a body follows
    kDone,     // the request is whole; bytes behind it belong to the next
    kRefused,  // it is none: status() and message()
  };

  // Takes bytes from the front. Not to be called again after kDone or kRefused.
  Step put(std::string_view& bytes);

  bool started() const;  // whether anything of the request has come
  bool http11() const;
  bool keep_alive() const;        // of a whole request: whether the client will go on with this connection
  bool expects_continue() const;  // after kHead: whether the client waits for "100 Continue"

  int status() const;  // of the refusal
  const std::string& message() const;

  HttpRequest& request();  // filled as far as it was read

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thimble
