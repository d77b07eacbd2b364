#include "serve/http_connection.h"

#include <fmt/core.h>
#include <openssl/rand.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "serve/http_error.h"
#include "serve/http_message.h"

namespace thimble {
namespace {

namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

constexpr size_t kReadAhead = 64 << 10;      // of later requests, while one is answered
constexpr size_t kEnoughUnsent = 256 << 10;  // no further request is taken from one who does not take its answers
constexpr size_t kPieceOfBody = 4 << 10;     // that renews the time to send: fewer bytes are a client that holds on
constexpr size_t kSmall = 1 << 10;           // a buffer that an idle connection may keep
constexpr int kReadsInTurn = 8;              // then others get theirs
constexpr std::chrono::seconds kLinger{5};

std::string new_request_id() {
  unsigned char bytes[12];
  RAND_bytes(bytes, sizeof(bytes));
  std::string id = "req_";
  for (const unsigned char b : bytes) id += fmt::format("{:02x}", b);
  return id;
}

void give_back(std::string& buffer) {
  if (buffer.empty() && buffer.capacity() > kSmall) buffer = std::string();
}

}  // namespace

HttpConnection::HttpConnection(HttpCore& core, Socket socket, std::string peer, ssl_ctx_st* tls)
    : core_(core),
      transport_(socket.get(), tls),
      socket_(core.context, socket.get()),
      timer_(core.context),
      peer_(std::move(peer)),
      secure_(tls != nullptr) {
  socket.release();
}

void HttpConnection::start() {
  read_due_ = Clock::now() + core_.limits.read_time;
  pump();
}

void HttpConnection::drain() {
  if (idle()) close();
}

void HttpConnection::close() {
  if (closed_) return;
  closed_ = true;
  const auto self = shared_from_this();
  boost::system::error_code ignored;
  timer_.cancel();
  socket_.close(ignored);
  core_.bodies_bytes -= std::exchange(counted_, 0);
  if (std::exchange(streaming_, false)) --core_.streams;
  if (const auto open = exchange_.lock()) {
    core_.guarded("after a client had left", [&] { open->leave(); });
  }
  exchange_.reset();
  parser_.reset();
  in_ = out_ = std::string();
  sent_ = 0;
  core_.connections.erase(self);
  --core_.open;
  core_.closed_one();
}

void HttpConnection::pump() {
  const auto self = shared_from_this();  // anything in here may close it
  const bool fine = core_.guarded("in a connection", [&] {
    if (!closed_) read();
    if (!closed_) write();
    if (!closed_) wait();
  });
  if (!fine) close();
}

void HttpConnection::pump_soon() {
  if (std::exchange(pump_posted_, true)) return;
  asio::post(core_.context, [self = shared_from_this()] {
    self->pump_posted_ = false;
    self->pump();
  });
}

bool HttpConnection::wants_to_read() const {
  return !client_ended_ && in_.size() < core_.limits.header_bytes + kReadAhead;
}

void HttpConnection::read() {
  for (int turn = 0; wants_to_read() && !closed_; ++turn) {
    // Others' turn. So it is behind a request that was handed over: an answer that is ready goes before the news that
    // the client sends no more.
    if (turn == kReadsInTurn || (turn > 0 && phase_ == Phase::kAnswer)) return pump_soon();
    size_t got = 0;
    const Outcome outcome = transport_.read(core_.scratch.data(), core_.scratch.size(), got);
    read_wait_ = outcome;
    if (outcome == Outcome::kWaitReadable || outcome == Outcome::kWaitWritable) return;
    if (outcome == Outcome::kFailed) return close();
    if (outcome == Outcome::kEnd) return client_ended();
    if (phase_ == Phase::kClosing || phase_ == Phase::kLinger) continue;
    in_.append(core_.scratch.data(), got);
    process();
  }
}

void HttpConnection::client_ended() {
  client_ended_ = true;
  if (phase_ == Phase::kAnswer || phase_ == Phase::kLinger || unsent() == 0) return close();
  phase_ = Phase::kClosing;
}

void HttpConnection::write() {
  while (unsent() > 0) {
    size_t sent = 0;
    write_wait_ = transport_.write(std::string_view(out_).substr(sent_), sent);
    if (write_wait_ == Outcome::kFailed || write_wait_ == Outcome::kEnd) return close();
    sent_ += sent;
    if (sent > 0 || write_due_ == kNever) write_due_ = Clock::now() + core_.limits.write_time;
    if (write_wait_ != Outcome::kDone) break;
  }
  if (unsent() > 0) {
    if (sent_ > kEnoughUnsent && sent_ > out_.size() / 2) {
      out_.erase(0, sent_);
      sent_ = 0;
    }
    if (streaming_ && unsent() > core_.limits.unsent_bytes) close();
    return;
  }
  out_.clear();
  sent_ = 0;
  give_back(out_);
  write_due_ = kNever;
  if (phase_ == Phase::kClosing) {
    transport_.end_sending();
    if (client_ended_) return close();
    phase_ = Phase::kLinger;
    read_due_ = Clock::now() + kLinger;
  }
  if (!in_.empty()) process();
  if (core_.draining && idle()) close();
}

void HttpConnection::wait() {
  const bool reads = wants_to_read();
  const bool writes = unsent() > 0;
  // One freed the way for the other.
  if ((reads && read_wait_ == Outcome::kDone) || (writes && write_wait_ == Outcome::kDone)) pump_soon();
  if ((reads && read_wait_ == Outcome::kWaitReadable) || (writes && write_wait_ == Outcome::kWaitReadable)) {
    arm(Descriptor::wait_read, read_armed_);
  }
  if ((writes && write_wait_ == Outcome::kWaitWritable) || (reads && read_wait_ == Outcome::kWaitWritable)) {
    arm(Descriptor::wait_write, write_armed_);
  }
  if (!reads) arm(Descriptor::wait_error, error_armed_);  // a client that left is not heard of by reading
  arm_timer();
}

void HttpConnection::arm(Descriptor::wait_type what, bool& armed) {
  if (std::exchange(armed, true)) return;
  socket_.async_wait(what, [self = shared_from_this(), what, &armed](const boost::system::error_code& failed) {
    armed = false;
    if (self->closed_) return;
    if (failed || what == Descriptor::wait_error) return self->close();
    self->pump();
  });
}

void HttpConnection::arm_timer() {
  const auto due = std::min({read_due_, write_due_, quiet_due_});
  if (due >= timer_at_) return;  // it looks again when it fires
  timer_at_ = due;
  timer_.expires_at(due);
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& cancelled) {
    if (cancelled || self->closed_) return;
    self->timer_at_ = kNever;
    if (!self->core_.guarded("in a connection", [&] { self->timed_out(); })) self->close();
  });
}

void HttpConnection::timed_out() {
  const auto now = Clock::now();
  if (write_due_ <= now) return close();
  if (quiet_due_ <= now) {
    not_quiet();
    // What waits to be taken says as much.
    if (const auto open = exchange_.lock(); open != nullptr && unsent() == 0) open->show_life();
  }
  if (read_due_ > now) return arm_timer();
  if (phase_ != Phase::kHead && phase_ != Phase::kBody) return close();
  refuse(408, "The request did not come in time.");
  pump();
}

void HttpConnection::not_quiet() {
  quiet_due_ = core_.limits.quiet_time.count() > 0 ? Clock::now() + core_.limits.quiet_time : kNever;
}

void HttpConnection::process() {
  while (!closed_ && !in_.empty() && unsent() < kEnoughUnsent) {
    if (phase_ != Phase::kIdle && phase_ != Phase::kHead && phase_ != Phase::kBody) break;
    if (phase_ == Phase::kIdle) {
      // An empty line before a request is tolerated (RFC 9112, 2.2).
      if (in_.starts_with("\r\n")) {
        in_.erase(0, 2);
        continue;
      }
      if (in_ == "\r") break;
      parser_ = std::make_unique<HttpParser>(core_.limits);
      phase_ = Phase::kHead;
      read_due_ = Clock::now() + core_.limits.read_time;
    }
    std::string_view bytes = in_;
    const HttpParser::Step step = parser_->put(bytes);
    in_.erase(0, in_.size() - bytes.size());
    if (step == HttpParser::Step::kRefused) {
      refuse(parser_->status(), parser_->message());
      break;
    }
    if (step == HttpParser::Step::kHead) head_is_whole();
    if (phase_ == Phase::kBody) body_grew();
    if (step == HttpParser::Step::kDone && phase_ != Phase::kClosing) call_handler();
    if (step == HttpParser::Step::kMore) break;
  }
  give_back(in_);
}

void HttpConnection::head_is_whole() {
  phase_ = Phase::kBody;
  read_due_ = Clock::now() + core_.limits.read_time;
  renewed_at_ = 0;
  if (parser_->expects_continue() && in_.empty()) out_ += "HTTP/1.1 100 Continue\r\n\r\n";
}

void HttpConnection::body_grew() {
  const size_t size = parser_->request().body.size();
  core_.bodies_bytes += size - counted_;
  counted_ = size;
  if (core_.bodies_bytes > core_.limits.all_bodies_bytes) {
    return refuse(503, "The server is reading too many large requests: try again in some seconds.");
  }
  if (size - renewed_at_ < kPieceOfBody) return;
  renewed_at_ = size;
  read_due_ = Clock::now() + core_.limits.read_time;
}

void HttpConnection::call_handler() {
  core_.bodies_bytes -= std::exchange(counted_, 0);
  phase_ = Phase::kAnswer;
  read_due_ = kNever;
  not_quiet();
  keep_alive_ = parser_->keep_alive();
  http11_ = parser_->http11();
  head_sent_ = chunked_ = false;
  id_ = new_request_id();
  ++number_;
  HttpRequest request = std::move(parser_->request());
  parser_.reset();
  request.peer = peer_;
  request.secure = secure_;
  request.id = id_;
  head_only_ = request.method == "HEAD";
  const auto state = std::make_shared<Exchange::State>(std::move(request), core_.mailbox, weak_from_this(), number_);
  exchange_ = state;
  const std::string what = "request " + id_;
  if (!core_.guarded(what.c_str(), [&] { core_.handler(Exchange(state)); })) {
    // It may hold other handles: this number's answer is not theirs any more.
    exchange_.reset();
    pump_soon();
    abandon(number_);
  }
}

void HttpConnection::refuse(int status, std::string_view message) {
  const HttpResponse refusal = error_response(status, message);  // the message may be the parser's
  core_.bodies_bytes -= std::exchange(counted_, 0);
  parser_.reset();
  in_.clear();
  keep_alive_ = false;
  http11_ = true;
  head_only_ = false;
  id_ = new_request_id();
  send_head(refusal, true);
  phase_ = Phase::kClosing;
  read_due_ = kNever;
}

void HttpConnection::send_head(const HttpResponse& head, bool whole) {
  if (!can_be_written(head)) {
    core_.say(fmt::format("request {}: an answer's status or headers can't be written", id_));
    send_head(error_response(500, fmt::format("The server failed; its log has more under {}.", id_)), true);
    return;
  }
  keep_alive_ = keep_alive_ && !core_.ending && !client_ended_;
  const bool no_body = head.status == 204 || head.status == 304;
  chunked_ = !whole && http11_ && !no_body;
  if (!whole && !http11_) keep_alive_ = false;  // the end of the stream is the connection's
  head_only_ = head_only_ || no_body;
  head_sent_ = true;
  out_ += response_head(
      head, {.http11 = http11_, .keep_alive = keep_alive_, .chunked = chunked_, .length = whole, .request_id = id_});
  if (whole && !head_only_) out_ += head.body;
}

void HttpConnection::send_piece(std::string_view piece) {
  if (piece.empty() || head_only_) return;
  if (chunked_) out_ += fmt::format("{:x}\r\n", piece.size());
  out_ += piece;
  if (chunked_) out_ += "\r\n";
}

void HttpConnection::deliver(Exchange::State& from) {
  Exchange::State::Delivery sent = from.take();
  if (closed_ || phase_ != Phase::kAnswer || from.number != number_ || exchange_.lock().get() != &from) return;
  const auto self = shared_from_this();
  const bool fine = core_.guarded("in a connection", [&] {
    bool ended = sent.ended;
    not_quiet();
    if (sent.head) {
      sent.head->headers.insert(sent.head->headers.end(), from.headers.begin(), from.headers.end());
      const bool writable = can_be_written(*sent.head);
      send_head(*sent.head, sent.whole);
      ended = ended || sent.whole || !writable;
      if (!ended) {
        streaming_ = true;
        ++core_.streams;
      }
      if (!writable) sent.pieces.clear();
    }
    send_piece(sent.pieces);
    if (ended) {
      if (chunked_ && !head_only_) out_ += "0\r\n\r\n";
      answered();
    }
  });
  if (!fine) return close();
  pump();
}

void HttpConnection::abandon(uint64_t number) {
  if (closed_ || number != number_ || phase_ != Phase::kAnswer) return;
  if (head_sent_) return close();
  send_head(error_response(500, fmt::format("The server failed; its log has more under {}.", id_)), true);
  answered();
  pump_soon();
}

void HttpConnection::answered() {
  if (const auto open = exchange_.lock()) open->forget_callback();
  exchange_.reset();
  quiet_due_ = kNever;
  if (std::exchange(streaming_, false)) --core_.streams;
  if (!keep_alive_ || core_.ending) {
    phase_ = Phase::kClosing;
    read_due_ = kNever;
    in_ = std::string();
    return;
  }
  phase_ = Phase::kIdle;
  read_due_ = Clock::now() + core_.limits.idle_time;
}

}  // namespace thimble
