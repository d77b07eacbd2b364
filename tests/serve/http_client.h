#pragma once

// A raw HTTP client for tests: sends the bytes that it is told to, and reads answers strictly.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thimble {

struct HttpAnswer {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  bool whole = false;  // the body ended as announced

  std::string header(std::string_view name) const {
    for (const auto& [n, value] : headers) {
      if (n == name) return value;
    }
    return {};
  }
};

class Client {
 public:
  static Client tcp(uint16_t port, bool v6 = false) {
    if (v6) {
      sockaddr_in6 to{};
      to.sin6_family = AF_INET6;
      to.sin6_port = htons(port);
      to.sin6_addr = in6addr_loopback;
      return Client(AF_INET6, &to, sizeof(to));
    }
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return Client(AF_INET, &to, sizeof(to));
  }
  static Client unix_socket(const std::string& path) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::strncpy(to.sun_path, path.c_str(), sizeof(to.sun_path) - 1);
    return Client(AF_UNIX, &to, sizeof(to));
  }
  ~Client() { close(); }
  Client(Client&& other) noexcept : socket_(std::exchange(other.socket_, -1)), in_(std::move(other.in_)) {}
  Client& operator=(Client&&) = delete;

  int file() const { return socket_; }
  void close() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }
  void end_sending() { shutdown(socket_, SHUT_WR); }
  void reset() {  // closes with a RST
    const linger at_once{1, 0};
    setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close();
  }

  // False where the server has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // Reads what there is; false at the end (or where nothing comes for `wait_ms`).
  bool more(int wait_ms = 10'000) {
    pollfd p{socket_, POLLIN, 0};
    if (poll(&p, 1, wait_ms) <= 0) {
      silent_ = true;
      return false;
    }
    char buffer[65536];
    const ssize_t n = recv(socket_, buffer, sizeof(buffer), 0);
    if (n <= 0) return false;
    in_.append(buffer, static_cast<size_t>(n));
    return true;
  }
  bool silent() const { return silent_; }  // the last more() waited in vain

  // Everything until the server closes.
  std::string rest() {
    while (more()) {
    }
    return std::exchange(in_, {});
  }

  std::string line() {
    size_t end;
    while ((end = in_.find("\r\n")) == in_.npos) {
      if (!more()) throw std::runtime_error("the connection ended within a line: '" + in_ + "'");
    }
    std::string text = in_.substr(0, end);
    in_.erase(0, end + 2);
    return text;
  }

  std::string exactly(size_t bytes) {
    while (in_.size() < bytes) {
      if (!more()) throw std::runtime_error("the connection ended within a body");
    }
    std::string text = in_.substr(0, bytes);
    in_.erase(0, bytes);
    return text;
  }

  HttpAnswer head() {
    HttpAnswer a;
    const std::string status = line();
    if (!status.starts_with("HTTP/1.1 ")) throw std::runtime_error("no status line: " + status);
    a.status = std::stoi(status.substr(9));
    for (std::string text = line(); !text.empty(); text = line()) {
      const size_t colon = text.find(": ");
      std::string name = text.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      a.headers.emplace_back(std::move(name), text.substr(colon + 2));
    }
    return a;
  }

  // One chunk; empty at the end of the body.
  std::string chunk() {
    const size_t size = std::stoul(line(), nullptr, 16);
    std::string text = exactly(size);
    if (!line().empty()) throw std::runtime_error("no line break behind a chunk");
    return text;
  }

  HttpAnswer answer(bool to_head = false) {
    HttpAnswer a = head();
    if (to_head || a.status == 204 || a.status == 304 || a.status < 200) {
      a.whole = true;
    } else if (a.header("transfer-encoding") == "chunked") {
      for (std::string piece = chunk(); !piece.empty(); piece = chunk()) a.body += piece;
      a.whole = true;
    } else if (const std::string length = a.header("content-length"); !length.empty()) {
      a.body = exactly(std::stoul(length));
      a.whole = true;
    } else {
      a.body = rest();
    }
    return a;
  }

 private:
  Client(int family, const void* to, socklen_t size) : socket_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (connect(socket_, static_cast<const sockaddr*>(to), size) != 0) {
      const std::string why = std::strerror(errno);
      close();
      throw std::runtime_error("can't connect: " + why);
    }
    const int on = 1;  // or a request in two parts waits for the server's acknowledgement of the first
    if (family != AF_UNIX) setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }

  int socket_;
  std::string in_;
  bool silent_ = false;
};

}  // namespace thimble
