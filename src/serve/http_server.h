#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>

#include "serve/http.h"
#include "serve/http_limits.h"
#include "serve/http_tls.h"

namespace thimble {

struct HttpOptions {
  std::string address = "127.0.0.1";  // IPv4, IPv6, or a path beginning with / for a Unix socket
  uint16_t port = 8080;               // 0: any free one
  std::optional<TlsFiles> tls{};
  HttpLimits limits{};
  std::function<void(const HttpOutcome&)> ended{};           // after every request; any thread
  std::function<void(const std::string&)> report{};  // one line for what goes wrong inside; on the server's thread
};

// HTTP/1.1 on one thread: keep-alive, chunked bodies both ways, pipelining one after the other, Expect: 100-continue.
// What is not HTTP gets a 400 with an OpenAI error body and is closed. The process may open as many files as the limit
// of connections needs, where its hard limit allows.
class HttpServer {
 public:
  // Called on the server's thread: must be quick; may keep the exchange. What it throws becomes a 500 that names the
  // request's id, and goes to HttpOptions::report.
  using Handler = std::function<void(Exchange)>;

  // Binds and listens. Throws Error where the address can't be had (with who holds it, where that can be said), or a
  // certificate can't be read.
  HttpServer(const HttpOptions& options, Handler handler);
  ~HttpServer();  // after run() has returned; exchanges that others still hold are gone

  uint16_t port() const;
  void run();    // serves until stop, or until a drain has ended
  // No new connections; open requests are finished, idle connections closed. Before that, for `wait` or until nothing
  // is open, all goes on, but every answer is its connection's last. Any thread
  void drain(std::chrono::milliseconds wait = {});
  void stop();   // at once. Any thread
  void post(std::function<void()> work);                                    // on the server's thread. Any thread
  void after(std::chrono::milliseconds delay, std::function<void()> work);  // the same

  // What to call, on the server's thread, when one of these signals comes, each time. Before run().
  void on_signals(std::initializer_list<int> signals, std::function<void(int signal)> callback);

  struct Load {
    int64_t connections = 0;  // open
    int64_t streams = 0;      // open
    int64_t accepted = 0;     // ever
  };
  Load load() const;  // any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thimble
