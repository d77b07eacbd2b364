#pragma once

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>

#include "serve/http.h"
#include "serve/http_limits.h"

namespace thimble {

class HttpConnection;

// The way to the server's thread, which may be gone when somebody still holds an exchange.
class HttpMailbox {
 public:
  explicit HttpMailbox(boost::asio::io_context& context) : context_(&context) {}

  std::function<void(const HttpOutcome&)> ended;  // set before there are exchanges

  template <typename F>
  bool post(F work) {  // false where the server has gone
    const std::scoped_lock lock(mutex_);
    if (context_ == nullptr) return false;
    boost::asio::post(*context_, std::move(work));
    return true;
  }

  void close() {
    const std::scoped_lock lock(mutex_);
    context_ = nullptr;
  }

 private:
  std::mutex mutex_;
  boost::asio::io_context* context_;
};

// What connections share. All but the counters is the server thread's own.
struct HttpCore {
  HttpLimits limits;
  std::function<void(Exchange)> handler;
  std::function<void(const std::string&)> report;
  std::function<void()> closed_one;  // a connection has left `connections`

  boost::asio::io_context context{1};
  std::shared_ptr<HttpMailbox> mailbox = std::make_shared<HttpMailbox>(context);
  std::unordered_set<std::shared_ptr<HttpConnection>> connections;
  bool ending = false;    // answers are their connections' last
  bool draining = false;  // and nothing new is taken
  size_t bodies_bytes = 0;  // of requests that are being read
  std::array<char, 64 << 10> scratch;

  std::atomic<int64_t> open{0};
  std::atomic<int64_t> streams{0};
  std::atomic<int64_t> accepted{0};

  // Runs what others wrote: nothing that it throws ends the server.
  template <typename F>
  bool guarded(const char* what, F&& work) {
    try {
      std::forward<F>(work)();
      return true;
    } catch (const std::exception& e) {
      say(std::string(what) + ": " + e.what());
    } catch (...) {
      say(std::string(what) + ": something that is no std::exception was thrown");
    }
    return false;
  }

  void say(const std::string& line) const {
    if (report) report(line);
  }
};

}  // namespace thimble
