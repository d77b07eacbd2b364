#pragma once

#include <cstddef>
#include <string_view>

struct ssl_st;
struct ssl_ctx_st;

namespace thimble {

// The bytes of a non-blocking socket, plain or over TLS. Does not own the socket.
class HttpTransport {
 public:
  HttpTransport(int socket, ssl_ctx_st* tls);  // nullptr: plain
  ~HttpTransport();
  HttpTransport(const HttpTransport&) = delete;
  HttpTransport& operator=(const HttpTransport&) = delete;

  enum class Outcome {
    kDone,
    kWaitReadable,  // call again once the socket can be read (over TLS also for writing: a handshake)
    kWaitWritable,
    kEnd,  // the other side sends no more
    kFailed,
  };
  Outcome read(char* to, size_t room, size_t& got);
  Outcome write(std::string_view bytes, size_t& sent);
  void end_sending();

 private:
  Outcome tls_outcome(int result) const;

  int socket_;
  ssl_st* tls_ = nullptr;
};

}  // namespace thimble
