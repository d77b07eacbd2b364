#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace thimble::test {

struct HttpRequest {
  std::string path;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// Answers HTTP on the loopback interface, one connection at a time, with whatever bytes the handler returns; the
// connection then ends, so a body shorter than its Content-Length is a cut connection.
class LoopbackServer {
 public:
  using Handler = std::function<std::string(const HttpRequest&)>;

  explicit LoopbackServer(Handler handler) : handler_(std::move(handler)) {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(socket_, 16);
    socklen_t size = sizeof address;
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~LoopbackServer() {
    stop_ = true;
    ::shutdown(socket_, SHUT_RDWR);
    ::close(socket_);
    thread_.join();
  }
  std::string url(const std::string& path) const { return "http://127.0.0.1:" + std::to_string(port_) + path; }
  std::vector<HttpRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    while (!stop_) {
      const int client = ::accept(socket_, nullptr, nullptr);
      if (client < 0) return;
      std::string text;
      char buffer[4096];
      while (text.find("\r\n\r\n") == std::string::npos) {
        const ssize_t got = ::recv(client, buffer, sizeof buffer, 0);
        if (got <= 0) break;
        text.append(buffer, static_cast<size_t>(got));
      }
      HttpRequest request = parse(text);
      if (const auto length = request.headers.find("content-length"); length != request.headers.end()) {
        request.body = text.substr(text.find("\r\n\r\n") + 4);
        while (request.body.size() < std::stoul(length->second)) {
          const ssize_t got = ::recv(client, buffer, sizeof buffer, 0);
          if (got <= 0) break;
          request.body.append(buffer, static_cast<size_t>(got));
        }
      }
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      const std::string answer = handler_(request);
      for (size_t sent = 0; sent < answer.size();) {
        const ssize_t count = ::send(client, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
        if (count <= 0) break;
        sent += static_cast<size_t>(count);
      }
      ::shutdown(client, SHUT_WR);
      while (::recv(client, buffer, sizeof buffer, 0) > 0) {
      }
      ::close(client);
    }
  }
  static HttpRequest parse(const std::string& text) {
    HttpRequest request;
    const size_t from = text.find(' ') + 1;
    request.path = text.substr(from, text.find(' ', from) - from);
    for (size_t at = text.find("\r\n"); at != std::string::npos; at = text.find("\r\n", at + 2)) {
      const size_t colon = text.find(": ", at), end = text.find("\r\n", at + 2);
      if (colon == std::string::npos || end == std::string::npos || colon > end) break;
      std::string name = text.substr(at + 2, colon - at - 2);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      request.headers[name] = text.substr(colon + 2, end - colon - 2);
    }
    return request;
  }

  Handler handler_;
  int socket_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_ = false;
  mutable std::mutex mutex_;
  std::vector<HttpRequest> requests_;
  std::thread thread_;
};

inline std::string http_answer(const std::string& status, const std::string& body, const std::string& headers = "") {
  return "HTTP/1.1 " + status + "\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         headers + "\r\n" + body;
}

// Serves one file with ranges and an ETag, as file servers do; `most` bytes of body, then the connection is cut.
inline std::string file_answer(const HttpRequest& request, const std::string& body, const std::string& etag,
                               size_t most = std::string::npos) {
  size_t from = 0;
  const auto range = request.headers.find("range"), condition = request.headers.find("if-range");
  if (range != request.headers.end() && (condition == request.headers.end() || condition->second == etag))
    from = std::stoul(range->second.substr(6));
  if (from >= body.size() && from > 0)
    return http_answer("416 Range Not Satisfiable", "",
                       "Content-Range: bytes */" + std::to_string(body.size()) + "\r\n");
  std::string headers = "ETag: " + etag + "\r\n";
  if (from > 0)
    headers += "Content-Range: bytes " + std::to_string(from) + "-" + std::to_string(body.size() - 1) + "/" +
               std::to_string(body.size()) + "\r\n";
  std::string answer = http_answer(from > 0 ? "206 Partial Content" : "200 OK", body.substr(from), headers);
  const size_t body_size = body.size() - from;
  if (most < body_size) answer.resize(answer.size() - (body_size - most));
  return answer;
}

}  // namespace thimble::test
