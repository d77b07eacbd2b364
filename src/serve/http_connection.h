#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "serve/http_core.h"
#include "serve/http_exchange.h"
#include "serve/http_listen.h"
#include "serve/http_parser.h"
#include "serve/http_transport.h"

struct ssl_ctx_st;

namespace thimble {

// One client: its requests one after the other, each answered before the next is read. Lives on the server's thread.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpCore& core, Socket socket, std::string peer, ssl_ctx_st* tls);

  void start();
  void drain();  // closes if nothing is open
  bool idle() const { return phase_ == Phase::kIdle && unsent() == 0; }
  void close();  // at once

  // From exchanges.
  void deliver(Exchange::State& from);
  void abandon(uint64_t number);

 private:
  using Clock = std::chrono::steady_clock;
  using Outcome = HttpTransport::Outcome;
  enum class Phase {
    kIdle,     // no byte of a request has come
    kHead,     // a part of its head has
    kBody,     // its head has
    kAnswer,   // it is with the handler
    kClosing,  // the last answer is being sent
    kLinger,   // it is sent: what the client still sends is dropped, or a reset would take the answer from it
  };
  static constexpr auto kNever = Clock::time_point::max();

  void pump();  // reads, writes and waits, as far as each can go
  void pump_soon();
  bool wants_to_read() const;
  void read();
  void write();
  void wait();
  void arm(boost::asio::posix::stream_descriptor::wait_type what, bool& armed);
  void arm_timer();
  void timed_out();
  void not_quiet();  // begins the time after which a stream shows that it lives

  void process();  // what has been read
  void head_is_whole();
  void body_grew();
  void call_handler();
  void refuse(int status, std::string_view message);
  void send_head(const HttpResponse& head, bool whole);
  void send_piece(std::string_view piece);
  void answered();
  void client_ended();
  size_t unsent() const { return out_.size() - sent_; }

  HttpCore& core_;
  HttpTransport transport_;
  boost::asio::posix::stream_descriptor socket_;
  boost::asio::steady_timer timer_;
  const std::string peer_;
  const bool secure_;

  Phase phase_ = Phase::kIdle;
  bool closed_ = false;
  bool keep_alive_ = true;
  bool http11_ = true;
  bool chunked_ = false;
  bool head_only_ = false;  // HEAD: bodies stay here
  bool head_sent_ = false;
  bool streaming_ = false;
  bool client_ended_ = false;

  std::unique_ptr<HttpParser> parser_;
  std::string in_;      // read, not yet parsed
  size_t counted_ = 0;  // of the body, in HttpCore::bodies_bytes
  size_t renewed_at_ = 0;
  std::string out_;
  size_t sent_ = 0;  // of out_

  uint64_t number_ = 0;
  std::string id_;
  std::weak_ptr<Exchange::State> exchange_;

  Outcome read_wait_ = Outcome::kDone;
  Outcome write_wait_ = Outcome::kDone;
  bool read_armed_ = false, write_armed_ = false, error_armed_ = false, pump_posted_ = false;
  Clock::time_point read_due_ = kNever, write_due_ = kNever, quiet_due_ = kNever,
                    timer_at_ = kNever;
};

}  // namespace thimble
