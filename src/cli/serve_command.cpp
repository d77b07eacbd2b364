#include <fmt/core.h>
#include <pthread.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/paths.h"
#include "serve/api_keys.h"
#include "serve/sandbox.h"
#include "serve/server.h"

namespace thimble {
namespace {

// Interrupt and termination end the server in two steps: first what runs is finished, then all is dropped. The signals
// are blocked in every thread that is made later, and taken here alone.
class EndSignals {
 public:
  EndSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }

  void watch(Server& server) {
    thread_ = std::jthread([this, &server](const std::stop_token& stop) {
      const timespec wait{0, 200'000'000};
      int seen = 0;
      while (!stop.stop_requested()) {
        if (sigtimedwait(&signals_, nullptr, &wait) < 0) continue;
        if (++seen == 1) {
          fmt::print(stderr, "finishing what runs; once more to stop at once\n");
          server.drain();
        } else {
          server.stop();
        }
      }
    });
  }

 private:
  sigset_t signals_{};
  std::jthread thread_;
};

std::string address_text(const ServeOptions& options, uint16_t port) {
  if (options.host.starts_with('/')) return "unix:" + options.host;
  const bool v6 = options.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", options.certificate.empty() ? "http" : "https", v6 ? "[" : "", options.host,
                     v6 ? "]" : "", port);
}

// The file of keys that is asked for, or the usual one if it holds any.
std::filesystem::path keys_file(const ServeOptions& options) {
  if (!options.keys.empty()) return options.keys;
  const auto usual = default_keys_file();
  return !usual.empty() && path_exists(usual) && !read_keys(usual).empty() ? usual : std::filesystem::path();
}

}  // namespace

int serve_command(const ServeOptions& options) {
  const auto start = Clock::now();
  EndSignals signals;
  ServerOptions server_options;
  server_options.http.address = options.host;
  server_options.http.port = options.port;
  if (options.certificate.empty() != options.key.empty())
    throw Error("--tls-cert and --tls-key belong together; give both");
  if (!options.certificate.empty()) server_options.http.tls = TlsFiles{options.certificate, options.key};
  if (!options.no_keys) server_options.guard.keys_file = keys_file(options);
  server_options.guard.hosts = options.allowed_hosts;
  server_options.guard.origins = options.allowed_origins;
  server_options.no_keys = options.no_keys;
  server_options.models = options.models;
  for (const std::string& given : options.adapters) {
    const size_t equals = given.find('=');
    if (equals == std::string::npos || equals == 0)
      throw Error(fmt::format("--adapter {}: give NAME=FOLDER", given));
    server_options.adapters.emplace_back(given.substr(0, equals), given.substr(equals + 1));
  }
  EngineOptions& engine = server_options.shelf.engine;
  engine.cache_tokens = options.context;
  engine.max_batch = options.parallel;
  engine.speculate = options.speculate;
  if (!options.kv_type.empty()) engine.kv_type = kv_type_from_name(options.kv_type);
  if (options.precision == "f32") server_options.shelf.precision = MatmulPrecision::kF32;
  server_options.shelf.memory_bytes = static_cast<size_t>(options.memory_mb) << 20;
  server_options.limits.default_max_tokens = options.max_tokens;
  server_options.limits.most_s = options.time_limit;
  server_options.http.limits.quiet_time = std::chrono::milliseconds(std::llround(options.ping * 1000));
  server_options.drain_wait_s = options.drain_wait;
  server_options.log_requests = !options.quiet;
  server_options.contents.file = options.log_contents;
  server_options.contents.keep_days = options.keep_contents;
  server_options.most_open = options.queue;

  Server server(std::move(server_options), [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
  if (options.offline) deny_outgoing_connections();
  signals.watch(server);
  const std::string address = address_text(options, server.port());
  fmt::print("{} in {:.2f} s\n", styled(stdout, Style::kBold, fmt::format("Thimble serves {}", address)),
             seconds_since(start));
  for (const auto& model : server.shelf().list())
    fmt::print("  {:<28} {}\n", model->name,
               model->adapter ? fmt::format("tuned on {}", model->base->name) : model->source.string());
  std::fflush(stdout);
  server.run();
  return kOk;
}

}  // namespace thimble
