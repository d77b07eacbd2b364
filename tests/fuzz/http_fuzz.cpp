// What comes over the wire, against the parser, the guard and the connection as the server runs it, over a socket pair.
// The first two bytes say how the rest is cut into pieces and how requests are answered.

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "serve/guard.h"
#include "serve/http_connection.h"
#include "serve/http_core.h"
#include "serve/http_parser.h"

namespace {

using namespace thimble;

HttpLimits limits() {
  HttpLimits l;
  l.header_bytes = 512;
  l.body_bytes = 1024;
  l.unsent_bytes = 64 << 10;
  return l;
}

void require(bool holds) {
  if (!holds) std::abort();
}

// Requests and the refusal behind them, as text.
struct Reading {
  std::vector<std::string> requests;
  int refusal = 0;
};

std::string text_of(const HttpRequest& r) {
  std::string text = r.method + '\n' + r.path + '\n';
  for (const auto& [name, value] : r.query) text += name + '=' + value + '\n';
  for (const auto& [name, value] : r.headers) text += name + ':' + value + '\n';
  return text + '\n' + r.body;
}

Reading read_in_pieces(std::string_view bytes, size_t piece) {
  Reading out;
  std::string held;
  HttpParser parser(limits());
  auto* current = &parser;
  std::unique_ptr<HttpParser> next;
  for (size_t at = 0; at < bytes.size();) {
    const size_t n = std::min(piece, bytes.size() - at);
    held.append(bytes.substr(at, n));
    at += n;
    std::string_view left = held;
    while (!left.empty()) {
      const size_t before = left.size();
      const HttpParser::Step step = current->put(left);
      require(left.size() <= before);
      require(current->request().body.size() <= limits().body_bytes);
      if (step == HttpParser::Step::kMore) break;
      if (step == HttpParser::Step::kRefused) {
        require(current->status() >= 400 && current->status() < 600 && !current->message().empty());
        out.refusal = current->status();
        return out;
      }
      if (step == HttpParser::Step::kDone) {
        out.requests.push_back(text_of(current->request()));
        next = std::make_unique<HttpParser>(limits());
        current = next.get();
      }
    }
    held.erase(0, held.size() - left.size());
  }
  return out;
}

GuardPolicy policy() {
  GuardPolicy p;
  p.hosts = {"ai.example.org"};
  p.origins = {"https://chat.example.org"};
  p.needs_key = true;
  ApiKey key;
  key.name = "a";
  key.sha256 = std::string(64, 'a');
  p.keys = {std::make_shared<const ApiKey>(key)};
  return p;
}

void check_guard(const HttpRequest& request) {
  static const GuardPolicy kPolicy = policy();
  const Admission a = admit(request, kPolicy);
  require(a.refusal || a.key == nullptr);  // nobody has a key of that digest
}

HttpCore& core() {
  static HttpCore* const made = [] {
    auto* c = new HttpCore;
    c->limits = limits();
    c->closed_one = [] {};
    return c;
  }();
  return *made;
}

void answer(Exchange exchange, unsigned how) {
  check_guard(exchange.request());
  switch (how % 5) {
    case 0:
      return exchange.respond({.body = exchange.request().body});
    case 1:
      exchange.start({.type = "text/event-stream", .body = exchange.request().path});
      exchange.send("data\n\n");
      return exchange.end();
    case 2:
      throw std::runtime_error("a handler's");
    case 3:
      return;  // forgotten
    default:
      exchange.start({.type = "text/plain"});
      exchange.on_gone([] {});
      return;  // in the middle of a stream
  }
}

void settle() {
  core().context.restart();
  while (core().context.poll() > 0) {
  }
}

void run_connection(std::string_view bytes, size_t piece, unsigned how) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return;
  const Socket client(ends[0]);
  core().handler = [how](Exchange e) { answer(std::move(e), how); };
  {
    const auto connection = std::make_shared<HttpConnection>(core(), Socket(ends[1]), "fuzz", nullptr);
    core().connections.insert(connection);
    ++core().open;
    connection->start();
  }
  std::string got;
  const auto receive = [&] {
    char buffer[65536];
    for (ssize_t n; (n = recv(client.get(), buffer, sizeof(buffer), 0)) > 0;) got.append(buffer, size_t(n));
  };
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = send(client.get(), bytes.data() + at, std::min(piece, bytes.size() - at), MSG_NOSIGNAL);
    if (n <= 0) break;
    at += static_cast<size_t>(n);
    settle();
    receive();
  }
  shutdown(client.get(), SHUT_WR);
  settle();
  receive();
  settle();
  require(core().connections.empty() && core().open == 0 && core().streams == 0 && core().bodies_bytes == 0);
  require(got.empty() || got.starts_with("HTTP/1.1 "));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 8192) return -1;  // many times the limits
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t piece = data[0] == 0 ? bytes.size() : data[0];
  const Reading at_once = read_in_pieces(bytes, bytes.size() + 1);
  const Reading in_pieces = read_in_pieces(bytes, std::max<size_t>(piece, 1));
  // How long a head may be, and what is wrong in one that is not whole yet, is found out sooner or later as its pieces
  // come, and may be called by another name; what passes for a request is the same.
  if (at_once.refusal != 431 && in_pieces.refusal != 431) require(at_once.requests == in_pieces.requests);
  run_connection(bytes, std::max({piece, bytes.size() / 64, size_t{1}}), data[1]);
  return 0;
}
