#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "serve/guard.h"
#include "serve/http_server.h"
#include "serve/service.h"
#include "serve/workers.h"

namespace thimble {

struct ServerOptions {
  HttpOptions http;
  GuardOptions guard;  // its address is http's
  bool no_keys = false;  // serve whoever reaches the address, also from other machines
  ShelfOptions shelf;
  GenerationLimits limits;
  int most_open = 256;
  std::vector<std::string> models;                             // use-case folders, paths, pulled names
  std::vector<std::pair<std::string, std::string>> adapters;  // name, path
  bool log_requests = true;  // a line each, without what was asked and answered
  ContentsLogOptions contents{};  // and what was asked and answered, where a file is given
  double drain_s = 30;                                         // in which running answers may end
  double drain_wait_s = 5;  // of them, in which new requests are taken while anything runs
};

// Everything behind `thimble serve`: the address, the models, the routes.
class Server {
 public:
  // Binds the address first, then opens the models. `tell` hears what an operator wants to know, a line each, from any
  // thread. Throws Error.
  Server(ServerOptions options, std::function<void(const std::string&)> tell);

  uint16_t port() const { return http_.port(); }
  const ModelShelf& shelf() const { return service_.shelf; }
  int64_t open_answers() const { return service_.engines.load().open; }  // that are made or wait
  void run();    // until drain or stop
  // Finishes what runs, at most drain_s long, then ends. /ready is 503 from now on; for drain_wait_s, while anything
  // runs, new requests are still taken, so that a proxy can notice before it is refused. Any thread
  void drain();
  void stop() { http_.stop(); }

 private:
  void handle(Exchange exchange);
  void watch_jobs();
  HttpOptions http_options() const;

  ServerOptions options_;
  std::function<void(const std::string&)> tell_;
  Guard guard_;
  Service service_;
  HttpServer http_;
  Workers workers_;
};

}  // namespace thimble
