#include "serve/http_transport.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <new>

namespace thimble {
namespace {

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK; }

ssize_t receive(int socket, void* to, size_t room) {
  ssize_t n;
  do n = recv(socket, to, room, 0);
  while (n < 0 && errno == EINTR);
  return n;
}

ssize_t transmit(int socket, const void* from, size_t bytes) {
  ssize_t n;
  do n = send(socket, from, bytes, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n;
}

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL, so that a client that leaves would end the process.
int bio_socket(BIO* bio) { return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))); }

int bio_read(BIO* bio, char* to, int room) {
  const ssize_t n = receive(bio_socket(bio), to, static_cast<size_t>(room));
  BIO_clear_retry_flags(bio);
  if (n < 0 && would_block()) BIO_set_retry_read(bio);
  if (n == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return static_cast<int>(n);
}

int bio_write(BIO* bio, const char* from, int bytes) {
  const ssize_t n = transmit(bio_socket(bio), from, static_cast<size_t>(bytes));
  BIO_clear_retry_flags(bio);
  if (n < 0 && would_block()) BIO_set_retry_write(bio);
  return static_cast<int>(n);
}

long bio_control(BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
  return 0;
}

BIO* socket_bio(int socket) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    if (m == nullptr) throw std::bad_alloc();
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_ctrl(m, bio_control);
    return m;
  }();
  BIO* bio = BIO_new(method);
  if (bio == nullptr) throw std::bad_alloc();
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(socket)));
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace

HttpTransport::HttpTransport(int socket, ssl_ctx_st* tls) : socket_(socket) {
  if (tls == nullptr) return;
  BIO* bio = socket_bio(socket);
  tls_ = SSL_new(tls);
  if (tls_ == nullptr) {
    BIO_free(bio);
    throw std::bad_alloc();
  }
  SSL_set_bio(tls_, bio, bio);
  SSL_set_accept_state(tls_);
}

HttpTransport::~HttpTransport() { SSL_free(tls_); }

HttpTransport::Outcome HttpTransport::tls_outcome(int result) const {
  switch (SSL_get_error(tls_, result)) {
    case SSL_ERROR_WANT_READ:
      return Outcome::kWaitReadable;
    case SSL_ERROR_WANT_WRITE:
      return Outcome::kWaitWritable;
    case SSL_ERROR_ZERO_RETURN:
      return Outcome::kEnd;
    default:
      return Outcome::kFailed;
  }
}

HttpTransport::Outcome HttpTransport::read(char* to, size_t room, size_t& got) {
  got = 0;
  if (tls_ != nullptr) {
    ERR_clear_error();
    const int result = SSL_read_ex(tls_, to, room, &got);
    return result == 1 ? Outcome::kDone : tls_outcome(result);
  }
  const ssize_t n = receive(socket_, to, room);
  if (n == 0) return Outcome::kEnd;
  if (n < 0) return would_block() ? Outcome::kWaitReadable : Outcome::kFailed;
  got = static_cast<size_t>(n);
  return Outcome::kDone;
}

HttpTransport::Outcome HttpTransport::write(std::string_view bytes, size_t& sent) {
  sent = 0;
  if (tls_ != nullptr) {
    ERR_clear_error();
    const int result = SSL_write_ex(tls_, bytes.data(), bytes.size(), &sent);
    return result == 1 ? Outcome::kDone : tls_outcome(result);
  }
  const ssize_t n = transmit(socket_, bytes.data(), bytes.size());
  if (n < 0) return would_block() ? Outcome::kWaitWritable : Outcome::kFailed;
  sent = static_cast<size_t>(n);
  return Outcome::kDone;
}

void HttpTransport::end_sending() {
  if (tls_ != nullptr && SSL_is_init_finished(tls_)) {
    ERR_clear_error();
    SSL_shutdown(tls_);
  }
  shutdown(socket_, SHUT_WR);
}

}  // namespace thimble
