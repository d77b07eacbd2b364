#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace thimble {

// A socket that is closed with its owner.
class Socket {
 public:
  explicit Socket(int file = -1) : file_(file) {}
  ~Socket();
  Socket(Socket&& other) noexcept : file_(other.release()) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  int get() const { return file_; }
  int release() { return std::exchange(file_, -1); }

 private:
  int file_;
};

// A non-blocking socket that listens at an IPv4 or IPv6 address or name of this machine, or at a path beginning with
// "/" (a Unix socket for its owner and group; one that a server left behind is replaced). Throws Error where it can't
// be had, with the process that holds the port where that can be seen.
Socket listen_at(const std::string& address, uint16_t port);

uint16_t bound_port(int socket);  // 0 of a Unix socket

// The address, without a port, of a socket's other side; "unix" where it has none.
std::string peer_address(int socket);

// Lets this process open that many files, as far as its hard limit goes.
size_t allow_files(size_t count);

}  // namespace thimble
