#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thimble {

struct ApiKey;  // api_keys.h

using HttpFields = std::vector<std::pair<std::string, std::string>>;

// A request as it came over the wire. Names of headers compare without case.
struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // percent-decoded UTF-8, without the query
  HttpFields query;    // decoded UTF-8, in the order given
  HttpFields headers;
  std::string body{};
  std::string peer;     // the client's address, without its port; "unix" behind a Unix socket
  std::string id;       // ours, unguessable: the answer carries it as x-request-id
  bool secure = false;  // over TLS

  const std::string* header(std::string_view name) const;     // the first of that name; nullptr where there is none
  const std::string* parameter(std::string_view name) const;  // of the query
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  std::string body{};
  HttpFields headers{};
};

// What a log says of a request that is over.
struct HttpOutcome {
  const HttpRequest& request;
  const ApiKey* key;     // nullptr where no key was needed
  int status;            // 499: the client left before anything was answered
  double seconds;        // from the request's last byte to the end of its answer
  std::string note;      // what its handler had to say
};

// One request and the way to answer it: whole, or as a stream of pieces. A handle; any thread may answer, one at a
// time, also after the function that was given it has returned. Where the last handle goes without an answer, the
// client gets a 500; where it goes in the middle of a stream, the connection is cut, so that nobody takes the part for
// the whole. What is sent to a client that has left goes nowhere. The body of an answer to HEAD is not sent.
class Exchange {
 public:
  struct State;
  explicit Exchange(std::shared_ptr<State> state) : state_(std::move(state)) {}

  const HttpRequest& request() const;

  // Headers for whatever is answered: call it before, on the server's thread.
  void add_headers(const HttpFields& headers);

  // Whose request it is, as the guard found out; nullptr where no key is needed. Set it on the server's thread.
  void set_key(std::shared_ptr<const ApiKey> key);
  const ApiKey* key() const;

  void note(std::string text);  // for the log; replaces what was noted before. Any thread, before the answer's end

  void respond(HttpResponse response);
  // The same where a stream may have begun: false, and nothing is sent, if it has.
  bool respond_unless_begun(HttpResponse response);

  // A stream: its head (a body in it is the first piece), pieces as they come, the end. A client that reads so slowly
  // that HttpLimits::unsent_bytes wait for it is cut off.
  void start(HttpResponse head);
  void send(std::string piece);
  void end();

  // Of an answer that becomes a stream: whenever nothing was sent for HttpLimits::quiet_time, `piece` is, a comment or an
  // event that says nothing, so that no proxy takes the connection for dead while a long prompt is read. `head` goes
  // before it where the stream has not begun; start() then does nothing.
  void stay_alive(HttpResponse head, std::string piece);

  // Whether the client has left, and what to call then, once, on the server's thread (soon, where it has). A client
  // that sends on while it waits for its answer has not left; one that closes its sending side has. The callback goes
  // with the answer's end, and must not hold the exchange itself, or the last handle never goes.
  bool gone() const;
  void on_gone(std::function<void()> callback);

 private:
  std::shared_ptr<State> state_;
};

}  // namespace thimble
