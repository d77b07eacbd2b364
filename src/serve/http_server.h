#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "serve/http.h"

namespace thimble {

struct TlsFiles {
  std::filesystem::path certificate;  // PEM, the chain with it
  std::filesystem::path key;
};

struct HttpLimits {
  size_t header_bytes = 16 << 10;    // 431 beyond
  size_t body_bytes = size_t{8} << 20;  // 413 beyond
  size_t unsent_bytes = size_t{4} << 20;
  int connections = 4096;  // more wait to be accepted
  std::chrono::seconds read_time{30};   // for a request's head, and again for each piece of its body: 408
  std::chrono::seconds idle_time{75};   // between requests of one connection
  std::chrono::seconds write_time{60};  // in which a client must take something
};

struct HttpOptions {
  std::string address = "127.0.0.1";  // IPv4, IPv6, or a path beginning with / for a Unix socket
  uint16_t port = 8080;               // 0: any free one
  std::optional<TlsFiles> tls;
  HttpLimits limits;
};

// HTTP/1.1 on one thread: keep-alive, chunked bodies both ways, pipelining one after the other, Expect: 100-continue.
// What is not HTTP gets a 400 with an OpenAI error body and is closed.
class HttpServer {
 public:
  using Handler = std::function<void(Exchange)>;  // called on the server's thread: must be quick; may keep the exchange

  // Binds and listens. Throws Error where the address can't be had (with who holds it, where that can be said), or a
  // certificate can't be read.
  HttpServer(const HttpOptions& options, Handler handler);
  ~HttpServer();

  uint16_t port() const;
  void run();    // serves until stop, or until a drain has ended
  void drain();  // no new connections; open requests are finished, idle connections closed. Any thread
  void stop();   // at once. Any thread
  void post(std::function<void()> work);  // on the server's thread
  void after(std::chrono::milliseconds delay, std::function<void()> work);

  struct Load {
    int64_t connections = 0;  // open
    int64_t streams = 0;      // open
    int64_t accepted = 0;     // ever
  };
  Load load() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thimble
