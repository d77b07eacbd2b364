#include "serve/http_server.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>

#include "serve/http_connection.h"
#include "serve/http_core.h"
#include "serve/http_listen.h"

namespace thimble {
namespace {

namespace asio = boost::asio;

constexpr std::chrono::milliseconds kBackOff{100};  // where the system has no file or memory for a connection
constexpr int kAcceptsInTurn = 64;
constexpr size_t kOtherFiles = 128;  // models, logs and what else the process has open

}  // namespace

struct HttpServer::Impl {
  Impl(const HttpOptions& options, Handler handler) : signals(core.context), pause(core.context), pause_before_end(core.context) {
    core.limits = options.limits;
    core.handler = std::move(handler);
    core.report = options.report;
    core.mailbox->ended = options.ended;
    core.closed_one = [this] { closed_one(); };
    if (options.tls) tls = tls_context(*options.tls);
    fit_files();
    Socket socket = listen_at(options.address, options.port);
    if (options.address.starts_with('/')) path = options.address;
    port = bound_port(socket.get());
    listener.emplace(core.context, socket.release());
  }

  ~Impl() {
    core.mailbox->close();
    stop_listening();
    // Each closes itself out of the set.
    while (!core.connections.empty()) (*core.connections.begin())->close();
  }

  // As many connections as the process may have open files for: more would be accepted and fail.
  void fit_files() {
    const auto wanted = static_cast<size_t>(core.limits.connections);
    const size_t files = allow_files(wanted + kOtherFiles);
    if (files >= wanted + kOtherFiles) return;
    core.limits.connections = static_cast<int>(files > 2 * kOtherFiles ? files - kOtherFiles : files / 2);
    core.say(fmt::format("{} connections are held instead of {}, as this process may open {} files; a higher hard limit "
                         "(ulimit -Hn, LimitNOFILE of systemd) lets it hold more",
                         core.limits.connections, wanted, files));
  }

  void wait_for_clients() {
    if (accepting || !listener) return;
    accepting = true;
    listener->async_wait(asio::posix::stream_descriptor::wait_read, [this](const boost::system::error_code& failed) {
      accepting = false;
      if (failed || !listener) return;
      if (core.guarded("while accepting", [this] { accept(); })) return;
      back_off();
    });
  }

  void accept() {
    for (int turn = 0; turn < kAcceptsInTurn; ++turn) {
      full = core.open >= core.limits.connections;
      if (full) return;  // closed_one goes on
      Socket client(accept4(listener->native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (client.get() < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) return back_off();
        complained = false;
        break;
      }
      std::string peer = peer_address(client.get());
      auto connection = std::make_shared<HttpConnection>(core, std::move(client), std::move(peer), tls.get());
      core.connections.insert(connection);
      ++core.open;
      ++core.accepted;
      connection->start();
    }
    wait_for_clients();
  }

  // The client stays in the queue, and the listening socket readable: waiting for it would spin.
  void back_off() {
    if (!std::exchange(complained, true)) {
      core.say(fmt::format("can't accept connections now: {}; they wait", std::strerror(errno)));
    }
    pause.expires_after(kBackOff);
    pause.async_wait([this](const boost::system::error_code& cancelled) {
      if (!cancelled) wait_for_clients();
    });
  }

  void closed_one() {
    if (std::exchange(full, false)) wait_for_clients();
    if (core.draining && core.connections.empty()) core.context.stop();
    if (core.ending && !core.draining && idle()) take_nothing_new();
  }

  void stop_listening() {
    if (!listener) return;
    boost::system::error_code ignored;
    listener->close(ignored);
    listener.reset();
    pause.cancel();
    if (!path.empty()) unlink(path.c_str());
  }

  // Goes on for `wait`, if anything is open; then takes nothing new.
  void drain(std::chrono::milliseconds wait) {
    if (std::exchange(core.ending, true)) return;
    if (wait.count() <= 0 || idle()) return take_nothing_new();
    pause_before_end.expires_after(wait);
    pause_before_end.async_wait([this](const boost::system::error_code& cancelled) {
      if (!cancelled && !core.draining) take_nothing_new();
    });
  }

  bool idle() const {
    return std::all_of(core.connections.begin(), core.connections.end(), [](const auto& c) { return c->idle(); });
  }

  void take_nothing_new() {
    core.draining = true;
    pause_before_end.cancel();
    stop_listening();
    const auto all = core.connections;
    for (const auto& connection : all) connection->drain();
    if (core.connections.empty()) core.context.stop();
  }

  void stop() {
    stop_listening();
    while (!core.connections.empty()) (*core.connections.begin())->close();
    core.context.stop();
  }

  void wait_for_signal() {
    signals.async_wait([this](const boost::system::error_code& cancelled, int signal) {
      if (cancelled) return;
      core.guarded("after a signal", [&] { signal_callback(signal); });
      wait_for_signal();
    });
  }

  HttpCore core;
  TlsContext tls;
  std::string path;  // of a Unix socket
  uint16_t port = 0;
  std::optional<asio::posix::stream_descriptor> listener;
  asio::signal_set signals;
  std::function<void(int)> signal_callback;
  asio::steady_timer pause;
  asio::steady_timer pause_before_end;
  bool accepting = false;
  bool full = false;        // the limit of connections is reached
  bool complained = false;  // about the same lack
};

HttpServer::HttpServer(const HttpOptions& options, Handler handler)
    : impl_(std::make_unique<Impl>(options, std::move(handler))) {}

HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const { return impl_->port; }

void HttpServer::run() {
  impl_->wait_for_clients();
  const auto work = asio::make_work_guard(impl_->core.context);
  while (!impl_->core.guarded("on the server's thread", [this] { impl_->core.context.run(); })) {
  }
}

void HttpServer::drain(std::chrono::milliseconds wait) {
  asio::post(impl_->core.context, [this, wait] { impl_->drain(wait); });
}

void HttpServer::stop() {
  asio::post(impl_->core.context, [this] { impl_->stop(); });
}

void HttpServer::post(std::function<void()> work) {
  asio::post(impl_->core.context, [this, work = std::move(work)] { impl_->core.guarded("posted work", work); });
}

void HttpServer::after(std::chrono::milliseconds delay, std::function<void()> work) {
  asio::post(impl_->core.context, [this, delay, work = std::move(work)] {
    const auto timer = std::make_shared<asio::steady_timer>(impl_->core.context, delay);
    timer->async_wait([this, timer, work](const boost::system::error_code& cancelled) {
      if (!cancelled) impl_->core.guarded("delayed work", work);
    });
  });
}

void HttpServer::on_signals(std::initializer_list<int> signals, std::function<void(int)> callback) {
  for (const int signal : signals) impl_->signals.add(signal);
  impl_->signal_callback = std::move(callback);
  impl_->wait_for_signal();
}

HttpServer::Load HttpServer::load() const { return {impl_->core.open, impl_->core.streams, impl_->core.accepted}; }

}  // namespace thimble
