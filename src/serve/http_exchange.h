#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/clock.h"
#include "serve/http.h"
#include "serve/http_core.h"

namespace thimble {

// An exchange as its handles share it. What they send waits here for the server's thread, so that many small pieces
// from an engine's thread wake it once.
struct Exchange::State : std::enable_shared_from_this<Exchange::State> {
  State(HttpRequest r, std::shared_ptr<HttpMailbox> m, std::weak_ptr<HttpConnection> c, uint64_t n)
      : request(std::move(r)), mailbox(std::move(m)), connection(std::move(c)), number(n) {}
  ~State();

  // What has been sent and not yet taken.
  struct Delivery {
    std::optional<HttpResponse> head;
    bool whole = false;  // head is the whole answer
    std::string pieces;
    bool ended = false;
  };
  Delivery take();

  void add(const std::function<void(Delivery&)>& change);  // where the answer has not ended; wakes the server's thread
  void leave();  // the client has left; runs the callback. On the server's thread
  void forget_callback();
  void show_life();  // sends what stay_alive gave, if anything

  const HttpRequest request;
  const std::shared_ptr<HttpMailbox> mailbox;
  const std::weak_ptr<HttpConnection> connection;
  const uint64_t number;  // of the requests of one connection

  HttpFields headers;  // for whatever is answered; the server's thread
  std::shared_ptr<const ApiKey> key;
  const Clock::time_point begin = Clock::now();
  int status = 0;    // of what was answered; under the mutex, as the note
  std::string note;
  std::atomic<bool> gone{false};
  std::mutex mutex;
  enum class Phase { kOpen, kStreaming, kEnded } phase = Phase::kOpen;
  Delivery waiting;
  bool scheduled = false;
  std::function<void()> callback;
  std::optional<HttpResponse> alive_head;  // of stay_alive, as its piece; under the mutex
  std::string alive_piece;
};

}  // namespace thimble
