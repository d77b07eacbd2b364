// The server over real sockets. Requests are written as raw bytes, so that wrong ones can be sent too.
#include "serve/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <openssl/ssl.h>
#include <sys/resource.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/child_process.h"
#include "core/error.h"
#include "formats/temporary_folder.h"
#include "serve/http_client.h"
#include "serve/http_error.h"

namespace thimble {
namespace {

using std::chrono::milliseconds;
using test::error_of;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// A server on its own thread, at a free port.
class Running {
 public:
  explicit Running(HttpServer::Handler handler, HttpOptions options = {}) {
    if (!options.address.starts_with('/')) options.port = 0;
    options.report = [this](const std::string& line) {
      const std::scoped_lock lock(mutex_);
      reported_ += line + "\n";
    };
    server_ = std::make_unique<HttpServer>(options, std::move(handler));
    thread_ = std::thread([this] { server_->run(); });
  }
  ~Running() {
    server_->stop();
    if (thread_.joinable()) thread_.join();
  }
  HttpServer& operator*() { return *server_; }
  HttpServer* operator->() { return server_.get(); }
  Client client() { return Client::tcp(server_->port()); }
  void join() { thread_.join(); }
  std::string reported() {
    const std::scoped_lock lock(mutex_);
    return reported_;
  }

 private:
  std::mutex mutex_;
  std::string reported_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

// Answers with what it understood of the request.
void echo(Exchange exchange) {
  const HttpRequest& r = exchange.request();
  nlohmann::ordered_json body = {{"method", r.method}, {"path", r.path}, {"body", r.body}, {"peer", r.peer}};
  for (const auto& [name, value] : r.query) body["query"][name] = value;
  exchange.respond({.body = body.dump()});
}

std::string post(std::string_view path, std::string_view body) {
  return "POST " + std::string(path) + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

const std::string kGet = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";

bool wait_until(const std::function<bool()>& what, milliseconds limit = milliseconds(10'000)) {
  for (const auto end = std::chrono::steady_clock::now() + limit; std::chrono::steady_clock::now() < end;) {
    if (what()) return true;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return what();
}

// Handlers' exchanges, kept for the test to answer.
class Kept {
 public:
  HttpServer::Handler handler() {
    return [this](Exchange e) {
      const std::scoped_lock lock(mutex_);
      all_.push_back(std::move(e));
      arrived_.notify_all();
    };
  }
  Exchange take() {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, milliseconds(10'000), [this] { return !all_.empty(); })) {
      throw std::runtime_error("no request came");
    }
    Exchange first = std::move(all_.front());
    all_.erase(all_.begin());
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Exchange> all_;
};

TEST(HttpServer, AnswersSeveralRequestsOfOneConnection) {
  Running server(echo);
  Client client = server.client();
  for (int i = 0; i < 3; ++i) {
    client.send(post("/a%20b?x=1+2&y=%C3%A4", "body " + std::to_string(i)));
    const HttpAnswer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.header("content-type"), "application/json");
    EXPECT_THAT(answer.header("x-request-id"), StartsWith("req_"));
    EXPECT_NE(answer.header("date"), "");
    const auto body = nlohmann::json::parse(answer.body);
    EXPECT_EQ(body["path"], "/a b");
    EXPECT_EQ(body["query"]["x"], "1 2");
    EXPECT_EQ(body["query"]["y"], "ä");
    EXPECT_EQ(body["body"], "body " + std::to_string(i));
    EXPECT_EQ(body["peer"], "127.0.0.1");
  }
  EXPECT_EQ(server->load().accepted, 1);
}

TEST(HttpServer, StreamsPiecesAsTheyCome) {
  Kept kept;
  Running server(kept.handler());
  Client client = server.client();
  client.send(kGet);
  Exchange exchange = kept.take();
  exchange.start({.type = "text/event-stream"});
  const HttpAnswer head = client.head();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.header("transfer-encoding"), "chunked");
  EXPECT_EQ(head.header("x-accel-buffering"), "no");
  EXPECT_TRUE(wait_until([&] { return server->load().streams == 1; }));
  for (int i = 0; i < 5; ++i) {
    const std::string event = "data: " + std::to_string(i) + "\n\n";
    exchange.send(event);
    EXPECT_EQ(client.chunk(), event);  // before the next one is sent: nothing is held back
  }
  exchange.end();
  EXPECT_EQ(client.chunk(), "");
  EXPECT_TRUE(wait_until([&] { return server->load().streams == 0; }));
  client.send(kGet);  // the connection goes on
  kept.take().respond({.body = "{}"});
  EXPECT_EQ(client.answer().body, "{}");
}

TEST(HttpServer, AnswersPipelinedRequestsInTheirOrder) {
  Kept kept;
  Running server(kept.handler());
  Client client = server.client();
  client.send(post("/1", "a") + post("/2", "") + kGet);
  for (const std::string path : {"/1", "/2", "/v1/models"}) {
    Exchange exchange = kept.take();  // the next comes only when this one is answered
    EXPECT_EQ(exchange.request().path, path);
    EXPECT_FALSE(exchange.gone());
    exchange.respond({.body = path});
    EXPECT_EQ(client.answer().body, path);
  }
}

TEST(HttpServer, ReadsRequestsSplitAtEveryByte) {
  Running server(echo);
  const std::string length = post("/some/path?q=1", "{\"a\": 1}");
  const std::string chunks =
      "POST /some/path?q=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3;ext=\"1\"\r\n{\"a\r\n5\r\n\": 1}\r\n0\r\nTrailer: dropped\r\n\r\n";
  for (const std::string& request : {length, chunks}) {
    Client client = server.client();
    for (size_t at = 1; at < request.size(); ++at) {
      client.send(request.substr(0, at));
      std::this_thread::sleep_for(milliseconds(1));  // or both parts arrive as one
      client.send(request.substr(at));
      const HttpAnswer answer = client.answer();
      ASSERT_EQ(answer.status, 200) << at << " " << answer.body;
      ASSERT_EQ(nlohmann::json::parse(answer.body)["body"], "{\"a\": 1}") << at;
    }
  }
  Client client = server.client();
  for (const char byte : chunks) {
    client.send({&byte, 1});
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  EXPECT_EQ(nlohmann::json::parse(client.answer().body)["body"], "{\"a\": 1}");
}

TEST(HttpServer, TakesLargeBodiesEitherWay) {
  Running server([](Exchange e) { e.respond({.type = "text/plain", .body = e.request().body}); });
  std::string body(3'000'000, 'x');
  for (size_t i = 0; i < body.size(); i += 1000) body[i] = static_cast<char>('a' + i / 1000 % 26);
  Client client = server.client();
  std::thread sender([&] { client.send(post("/", body)); });
  const HttpAnswer answer = client.answer();
  sender.join();
  EXPECT_EQ(answer.body, body);
}

TEST(HttpServer, SaysContinueToWhoWaitsForIt) {
  Running server(echo);
  Client client = server.client();
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.answer().status, 100);
  client.send("{}");
  EXPECT_EQ(client.answer().status, 200);
  // What would be refused is refused before it is sent.
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.answer().status, 413);
}

TEST(HttpServer, AnswersHeadWithoutBodyAndHttp10WithoutKeepingAlive) {
  Running server(echo);
  Client client = server.client();
  client.send("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n" + kGet);
  const HttpAnswer head = client.answer(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_GT(std::stoi(head.header("content-length")), 10);
  EXPECT_THAT(client.answer().body, HasSubstr("/v1/models"));

  Client old = server.client();
  old.send("GET /old HTTP/1.0\r\n\r\n");
  const HttpAnswer answer = old.answer();
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_THAT(answer.body, HasSubstr("/old"));
  EXPECT_EQ(old.rest(), "");

  Client kept = server.client();
  kept.send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(kept.answer().header("connection"), "keep-alive");
  kept.send("GET /old HTTP/1.0\r\n\r\n");
  EXPECT_EQ(kept.answer().status, 200);
}

TEST(HttpServer, EndsAStreamToHttp10WithTheConnection) {
  Running server([](Exchange e) {
    e.start({.type = "text/event-stream", .body = "a"});
    e.send("b");
    e.end();
  });
  Client client = server.client();
  client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const HttpAnswer answer = client.answer();
  EXPECT_EQ(answer.header("transfer-encoding"), "");
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_EQ(answer.body, "ab");
}

TEST(HttpServer, TakesTheAbsoluteFormsHostForTheHost) {
  Running server([](Exchange e) { e.respond({.body = *e.request().header("host") + e.request().path}); });
  Client client = server.client();
  client.send("GET http://example.org:81/p?a=b HTTP/1.1\r\nHost: other\r\n\r\n");
  EXPECT_EQ(client.answer().body, "example.org:81/p");
}

struct Malformed {
  const char* name;
  std::string request;
  int status;
};

class HttpMalformed : public testing::TestWithParam<Malformed> {};

TEST_P(HttpMalformed, IsRefusedWithAnOpenAiErrorAndClosed) {
  HttpOptions options;
  options.limits.header_bytes = 2000;
  options.limits.body_bytes = 1000;
  std::atomic<int> handled{0};
  Running server(
      [&](Exchange e) {
        ++handled;
        echo(e);
      },
      options);
  Client client = server.client();
  client.send(GetParam().request);
  const HttpAnswer answer = client.answer();
  EXPECT_EQ(answer.status, GetParam().status) << answer.body;
  EXPECT_EQ(answer.header("connection"), "close");
  const auto error = nlohmann::json::parse(answer.body).at("error");
  EXPECT_EQ(error.at("type"), GetParam().status < 500 ? "invalid_request_error" : "server_error");
  EXPECT_GT(error.at("message").get<std::string>().size(), 20u);
  EXPECT_TRUE(error.at("param").is_null());
  EXPECT_TRUE(error.at("code").is_null());
  EXPECT_EQ(client.rest(), "");
  EXPECT_EQ(handled, 0);
  // Others are served as before.
  Client next = server.client();
  next.send(kGet);
  EXPECT_EQ(next.answer().status, 200);
}

INSTANTIATE_TEST_SUITE_P(
    All, HttpMalformed,
    testing::Values(
        Malformed{"NoHttp", "hello\r\n\r\n", 400}, Malformed{"Tls", "\x16\x03\x01\x02\r\n\r\n", 400},
        Malformed{"Http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505}, Malformed{"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
        Malformed{"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        Malformed{"LengthAndChunks",
                  "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                  400},
        Malformed{"ChunksAndLength",
                  "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
                  400},
        Malformed{"TwoLengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
        Malformed{"NegativeLength", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
        Malformed{"UnknownCoding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc", 501},
        Malformed{"SeveralCodings", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                  501},
        Malformed{"OldChunks", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        Malformed{"BadChunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
        Malformed{"HugeChunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
                  400},
        Malformed{"SpaceBeforeColon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
        Malformed{"BareLineFeeds", "GET / HTTP/1.1\nHost: x\n\n\r\n\r\n", 505},
        Malformed{"ControlCharacter", std::string("GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 37), 400},
        Malformed{"PathNotUtf8", "GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        Malformed{"PathWithNul", "GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        Malformed{"BrokenEscape", "GET /a%4 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        Malformed{"NoPath", "CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        Malformed{"Expectation", "GET / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n", 417},
        Malformed{"LongHead", "GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(2000, 'a') + "\r\n\r\n", 431},
        Malformed{"EndlessHead", "GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(5000, 'a'), 431},
        Malformed{"EndlessLine", "GET /" + std::string(5000, 'a'), 431},
        Malformed{"EndlessExtension",
                  "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(5000, 'a'), 431},
        Malformed{"EndlessTrailer",
                  "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: " + std::string(5000, 'a'),
                  431},
        Malformed{"LargeBody", post("/", std::string(1001, 'a')), 413},
        Malformed{"LargeChunks",
                  "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1F4\r\n" + std::string(500, 'a') +
                      "\r\n1F5\r\n" + std::string(501, 'a') + "\r\n0\r\n\r\n",
                  413}),
    [](const auto& info) { return info.param.name; });

TEST(HttpServer, ToleratesAnEmptyLineBeforeARequest) {
  Running server(echo);
  Client client = server.client();
  client.send("\r\n" + kGet + "\r\n" + kGet);
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_EQ(client.answer().status, 200);
}

TEST(HttpServer, ReadsAnAnswerToTheEndOfALargeBodyThatWasRefused) {
  // Who sends first and reads then must find the answer, not a reset.
  Running server(echo);
  Client client = server.client();
  EXPECT_TRUE(client.send(post("/", std::string(20'000'000, 'a'))));
  EXPECT_EQ(client.answer().status, 413);
}

TEST(HttpServer, GivesUpOnRequestsThatDoNotCome) {
  HttpOptions options;
  options.limits.read_time = milliseconds(150);
  options.limits.idle_time = milliseconds(400);
  Running server(echo, options);
  Client silent = server.client();
  EXPECT_EQ(silent.rest(), "");  // nothing was asked: nothing is answered

  Client slow = server.client();  // a byte now and then does not hold the connection
  std::thread dripping([&] {
    for (int i = 0;
         i < 40 && slow.send(std::string_view("GET / HTTP/1.1\r\nHost: xxxxxxxxxxxxxxxxxxxxxxxx").substr(i, 1)); ++i) {
      std::this_thread::sleep_for(milliseconds(20));
    }
  });
  EXPECT_EQ(slow.answer().status, 408);
  dripping.join();

  Client half = server.client();
  half.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(half.answer().status, 408);

  Client idle = server.client();
  idle.send(kGet);
  EXPECT_EQ(idle.answer().status, 200);
  const auto from = std::chrono::steady_clock::now();
  EXPECT_EQ(idle.rest(), "");
  EXPECT_GE(std::chrono::steady_clock::now() - from, milliseconds(350));
  EXPECT_TRUE(wait_until([&] { return server->load().connections <= 2; }));
}

TEST(HttpServer, CutsOffAClientThatDoesNotRead) {
  HttpOptions options;
  options.limits.unsent_bytes = 1 << 20;
  Kept kept;
  Running server(kept.handler(), options);
  Client client = server.client();
  client.send(kGet);
  Exchange exchange = kept.take();
  std::atomic<bool> told{false};
  exchange.on_gone([&] { told = true; });
  exchange.start({.type = "text/event-stream"});
  size_t sent = 0;
  while (!exchange.gone() && sent < size_t{1} << 30) {  // the kernel takes some megabytes first
    exchange.send(std::string(64 << 10, 'x'));
    sent += 64 << 10;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
  EXPECT_TRUE(exchange.gone());
  EXPECT_TRUE(wait_until([&] { return told.load(); }));
  EXPECT_LT(sent, size_t{100} << 20);
  EXPECT_TRUE(wait_until([&] { return server->load().connections == 0; }));
}

TEST(HttpServer, CutsOffAClientThatTakesNothingForTooLong) {
  HttpOptions options;
  options.limits.write_time = milliseconds(200);
  Running server([](Exchange e) { e.respond({.body = std::string(30'000'000, 'x')}); }, options);
  Client client = server.client();
  client.send(kGet);
  EXPECT_TRUE(wait_until([&] { return server->load().connections == 1; }));
  EXPECT_TRUE(wait_until([&] { return server->load().connections == 0; }));
  EXPECT_LT(client.rest().size(), 30'000'000u);
}

TEST(HttpServer, NoticesThatAWaitingClientHasLeft) {
  for (const bool with_reset : {false, true}) {
    for (const bool streaming : {false, true}) {
      Kept kept;
      Running server(kept.handler());
      Client client = server.client();
      client.send(kGet);
      Exchange exchange = kept.take();
      std::atomic<int> told{0};
      exchange.on_gone([&] { ++told; });
      if (streaming) {
        exchange.start({.type = "text/event-stream", .body = "first"});
        client.head();
        EXPECT_EQ(client.chunk(), "first");
      }
      EXPECT_FALSE(exchange.gone());
      with_reset ? client.reset() : client.close();
      EXPECT_TRUE(wait_until([&] { return told == 1; })) << with_reset << streaming;
      EXPECT_TRUE(exchange.gone());
      exchange.send("goes nowhere");
      exchange.end();
      exchange.on_gone([&] { ++told; });  // it has left already: told soon
      EXPECT_TRUE(wait_until([&] { return told == 2; }));
      EXPECT_EQ(server->load().connections, 0);
      EXPECT_EQ(server->load().streams, 0);
    }
  }
}

TEST(HttpServer, AClientThatPipelinesOnHasNotLeft) {
  Kept kept;
  Running server(kept.handler());
  Client client = server.client();
  client.send(kGet);
  Exchange first = kept.take();
  const int more = 3000;  // beyond what is read ahead
  std::thread sender([&] {
    for (int i = 0; i < more; ++i) client.send(kGet);
  });
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_FALSE(first.gone());
  first.respond({.body = "first"});
  EXPECT_EQ(client.answer().body, "first");
  for (int i = 0; i < more; ++i) {
    kept.take().respond({.body = std::to_string(i)});
    ASSERT_EQ(client.answer().body, std::to_string(i));
  }
  sender.join();
}

TEST(HttpServer, NoticesThatAClientLeftWhoHadSentAhead) {
  Kept kept;
  Running server(kept.handler());
  Client client = server.client();
  client.send(kGet);
  Exchange first = kept.take();
  std::thread sender([&] {
    const std::string requests(200'000, 'x');
    client.send(requests);
  });
  sender.join();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_FALSE(first.gone());
  client.reset();
  EXPECT_TRUE(wait_until([&] { return first.gone(); }));
}

TEST(HttpServer, AnswersAtOnceWhoHasEndedSending) {
  Running server(echo);
  Client client = server.client();
  client.send(kGet);
  client.end_sending();
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_EQ(client.rest(), "");
}

TEST(HttpServer, AnswersForHandlersThatThrowOrForget) {
  Running server([](Exchange e) {
    if (e.request().path == "/throw") throw std::runtime_error("secret detail");
    if (e.request().path == "/odd") throw 42;
    if (e.request().path == "/split") e.respond({.headers = {{"X-Name", "a\r\nInjected: b"}}});
  });
  Client client = server.client();
  for (const std::string path : {"/throw", "/odd", "/forget", "/split"}) {
    client.send(post(path, ""));
    const HttpAnswer answer = client.answer();
    EXPECT_EQ(answer.status, 500) << path;
    EXPECT_THAT(answer.body, HasSubstr(answer.header("x-request-id")));
    EXPECT_THAT(answer.body, HasSubstr("server_error"));
    EXPECT_THAT(answer.body, Not(HasSubstr("secret")));
    EXPECT_EQ(answer.header("injected"), "");
    if (path == "/throw") {
      EXPECT_THAT(server.reported(), HasSubstr(answer.header("x-request-id") + ": secret detail"));
    }
  }
}

TEST(HttpServer, CutsAStreamThatItsHandlerForgets) {
  Kept kept;
  Running server(kept.handler());
  Client client = server.client();
  client.send(kGet);
  {
    Exchange exchange = kept.take();
    exchange.start({.body = "part"});
  }
  EXPECT_EQ(client.head().status, 200);
  EXPECT_EQ(client.chunk(), "part");
  EXPECT_EQ(client.rest(), "");  // and no last chunk: the client sees that it is not whole
}

TEST(HttpServer, TakesPiecesFromManyThreads) {
  Kept kept;
  Running server(kept.handler());
  constexpr int kClients = 16, kPieces = 500;
  std::vector<Client> clients;
  std::vector<std::thread> writers;
  for (int c = 0; c < kClients; ++c) {
    clients.push_back(server.client());
    clients.back().send(post("/", std::to_string(c)));
  }
  for (int c = 0; c < kClients; ++c) {
    writers.emplace_back([exchange = kept.take()]() mutable {
      exchange.start({.type = "text/plain", .body = exchange.request().body + ":"});
      for (int i = 0; i < kPieces; ++i) exchange.send(std::to_string(i) + " ");
      exchange.end();
    });
  }
  std::string all;
  for (int i = 0; i < kPieces; ++i) all += std::to_string(i) + " ";
  for (int c = 0; c < kClients; ++c) EXPECT_EQ(clients[c].answer().body, std::to_string(c) + ":" + all);
  for (auto& w : writers) w.join();
}

TEST(HttpServer, AQuietStreamShowsThatItLives) {
  HttpOptions options;
  options.limits.quiet_time = milliseconds(40);
  Kept kept;
  Running server(kept.handler(), options);
  Client client = server.client();
  client.send(post("/v1/chat/completions", "{}"));
  Exchange exchange = kept.take();
  exchange.stay_alive({.type = "text/event-stream"}, ": ping\n\n");
  EXPECT_EQ(client.head().header("content-type"), "text/event-stream");  // before anything was started
  EXPECT_EQ(client.chunk(), ": ping\n\n");
  EXPECT_EQ(client.chunk(), ": ping\n\n");
  EXPECT_FALSE(exchange.respond_unless_begun({.status = 400}));
  exchange.start({.status = 201, .type = "text/plain"});
  exchange.send("data: hello\n\n");
  std::string piece = client.chunk();
  while (piece == ": ping\n\n") piece = client.chunk();
  EXPECT_EQ(piece, "data: hello\n\n");
  EXPECT_EQ(client.chunk(), ": ping\n\n");
  exchange.end();
  while (!piece.empty()) piece = client.chunk();

  client.send(post("/v1/models", "{}"));  // nobody said that this one may be a stream
  Exchange second = kept.take();
  EXPECT_FALSE(client.more(300));
  EXPECT_TRUE(second.respond_unless_begun({.status = 400}));
  EXPECT_EQ(client.answer().status, 400);
  EXPECT_FALSE(client.more(150));
}

// On the heap: what is resident says nothing where earlier tests left free memory behind.
size_t heap_bytes() {
  const auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST(HttpServer, HoldsTwoThousandStreamsInLittleMemory) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  constexpr int kStreams = 2000;
  if (files.rlim_max < 2 * kStreams + 100) GTEST_SKIP() << "the hard limit of open files is " << files.rlim_max;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  Kept kept;
  Running server(kept.handler());
  std::vector<Client> clients;
  std::vector<Exchange> streams;
  clients.reserve(kStreams);
  streams.reserve(kStreams);
  const size_t before = heap_bytes();
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(server.client());
    clients.back().send(post("/v1/chat/completions", R"({"model": "m", "messages": [], "stream": true})"));
    streams.push_back(kept.take());
    streams.back().start({.type = "text/event-stream"});
    streams.back().send("data: hello\n\n");
  }
  for (auto& c : clients) {
    EXPECT_EQ(c.head().status, 200);
    EXPECT_EQ(c.chunk(), "data: hello\n\n");
  }
  EXPECT_EQ(server->load().streams, kStreams);
  const size_t used = heap_bytes() - before;
  std::printf("%d idle streams: %.1f MB, clients and handlers included\n", kStreams, static_cast<double>(used) / 1e6);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(used, 30'000'000u);
#endif
  for (auto& s : streams) {
    s.send("data: [DONE]\n\n");
    s.end();
  }
  for (auto& c : clients) {
    EXPECT_EQ(c.chunk(), "data: [DONE]\n\n");
    EXPECT_EQ(c.chunk(), "");
  }
}

TEST(HttpServer, LetsClientsWaitBeyondTheLimitOfConnections) {
  HttpOptions options;
  options.limits.connections = 2;
  Running server(echo, options);
  Client first = server.client(), second = server.client(), third = server.client();
  for (Client* c : {&first, &second, &third}) c->send(kGet);
  EXPECT_EQ(first.answer().status, 200);
  EXPECT_EQ(second.answer().status, 200);
  EXPECT_FALSE(third.more(100));
  EXPECT_TRUE(third.silent());
  EXPECT_EQ(server->load().connections, 2);
  first.close();
  EXPECT_EQ(third.answer().status, 200);
}

TEST(HttpServerDeathTest, HoldsNoMoreConnectionsThanFilesMayBeOpen) {
  EXPECT_EXIT(
      {
        rlimit few{};
        few.rlim_cur = few.rlim_max = 300;
        setrlimit(RLIMIT_NOFILE, &few);
        HttpOptions options;
        options.port = 0;
        options.report = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
        HttpServer server(options, echo);
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "172 connections are held instead of 4096, as this process may open 300 files");
}

// Seconds of this process's threads on a processor.
double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

TEST(HttpServer, WaitsWithoutSpinningWhereNoFilesAreLeft) {
  Running server(echo);
  Client client = server.client();
  client.send(kGet);
  EXPECT_EQ(client.answer().status, 200);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  Client late = server.client();  // its file exists before the limit falls
  late.send(kGet);
  EXPECT_EQ(late.answer().status, 200);
  const int waiting = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  rlimit none = before;
  none.rlim_cur = 3;
  setrlimit(RLIMIT_NOFILE, &none);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(server->port());
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(waiting, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);  // by the kernel's queue
  const double from = processor_seconds();
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_LT(processor_seconds() - from, 0.25);
  client.send(kGet);  // who is connected is served
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_THAT(server.reported(), HasSubstr("can't accept connections now"));
  EXPECT_EQ(server->load().accepted, 2);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(wait_until([&] { return server->load().accepted == 3; }));
  ::close(waiting);
}

TEST(HttpServer, RefusesNewRequestsThatWouldNotFitInMemory) {
  HttpOptions options;
  options.limits.all_bodies_bytes = 100'000;
  Running server(echo, options);
  Client first = server.client(), second = server.client();
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n";
  first.send(head + std::string(80'000, 'a'));
  std::this_thread::sleep_for(milliseconds(50));
  second.send(head + std::string(80'000, 'a'));
  EXPECT_EQ(second.answer().status, 503);
  first.send(std::string(10'000, 'a'));
  EXPECT_EQ(first.answer().status, 200);
}

TEST(HttpServer, DrainsOpenRequestsAndThenEnds) {
  Kept kept;
  Running server(kept.handler());
  Client streaming = server.client(), waiting = server.client(), idle = server.client();
  idle.send(kGet);
  kept.take().respond({.body = "{}"});
  EXPECT_EQ(idle.answer().status, 200);
  streaming.send(kGet);
  Exchange stream = kept.take();
  stream.start({.type = "text/event-stream"});
  stream.send("1");
  EXPECT_EQ(streaming.head().status, 200);
  EXPECT_EQ(streaming.chunk(), "1");
  waiting.send(kGet);
  Exchange answer = kept.take();
  const uint16_t port = server->port();

  server->drain();
  EXPECT_EQ(idle.rest(), "");
  EXPECT_THROW(Client::tcp(port), std::runtime_error);
  answer.respond({.body = "late"});
  const HttpAnswer late = waiting.answer();
  EXPECT_EQ(late.body, "late");
  EXPECT_EQ(late.header("connection"), "close");
  EXPECT_EQ(waiting.rest(), "");
  stream.send("2");
  EXPECT_EQ(streaming.chunk(), "2");
  stream.end();
  EXPECT_EQ(streaming.chunk(), "");
  EXPECT_EQ(streaming.rest(), "");
  streaming.close();
  waiting.close();
  server.join();
}

TEST(HttpServer, StopTellsWhoWaits) {
  Kept kept;
  auto server = std::make_unique<Running>(kept.handler());
  Client client = server->client();
  client.send(kGet);
  Exchange exchange = kept.take();
  std::atomic<bool> told{false};
  exchange.on_gone([&] { told = true; });
  server.reset();
  EXPECT_TRUE(told);
  EXPECT_TRUE(exchange.gone());
  EXPECT_EQ(client.rest(), "");
  exchange.respond({.body = "{}"});  // after the server: goes nowhere
  told = false;
  exchange.on_gone([&] { told = true; });
  EXPECT_TRUE(told);
}

TEST(HttpServer, RunsPostedAndDelayedWorkAndAnswersSignals) {
  HttpOptions options;
  options.port = 0;
  HttpServer server(options, echo);
  std::vector<std::string> order;
  server.on_signals({SIGUSR1}, [&](int signal) {
    order.push_back("signal");
    EXPECT_EQ(signal, SIGUSR1);
    server.stop();
  });
  server.after(milliseconds(20), [&] {
    order.push_back("after");
    raise(SIGUSR1);
  });
  server.post([&] {
    order.push_back("post");
    throw std::runtime_error("ends nothing");
  });
  server.run();
  EXPECT_THAT(order, testing::ElementsAre("post", "after", "signal"));
}

TEST(HttpServer, NamesWhoHoldsAPort) {
  Running server(echo);
  HttpOptions options;
  options.port = server->port();
  const std::string message = error_of([&] { HttpServer(options, echo); });
  EXPECT_THAT(message, HasSubstr("port " + std::to_string(options.port) + " is taken"));
  EXPECT_THAT(message, HasSubstr("process " + std::to_string(getpid())));
  options.address = "not an address";
  EXPECT_THAT(error_of([&] { HttpServer(options, echo); }), HasSubstr("is no address of this machine"));
  options.address = "192.0.2.1";
  EXPECT_THAT(error_of([&] { HttpServer(options, echo); }), HasSubstr("192.0.2.1"));
}

TEST(HttpServer, ListensAtIpv6) {
  HttpOptions options;
  options.address = "::1";
  std::unique_ptr<Running> server;
  try {
    server = std::make_unique<Running>(echo, options);
  } catch (const Error& e) {
    GTEST_SKIP() << e.what();
  }
  Client client = Client::tcp((*server)->port(), true);
  client.send(kGet);
  EXPECT_EQ(nlohmann::json::parse(client.answer().body)["peer"], "::1");
}

TEST(HttpServer, ListensAtAUnixSocket) {
  const test::TemporaryFolder folder;
  HttpOptions options;
  options.address = folder.path() / "thimble.sock";
  {
    Running server(echo, options);
    Client client = Client::unix_socket(options.address);
    client.send(kGet);
    EXPECT_EQ(nlohmann::json::parse(client.answer().body)["peer"], "unix");
    EXPECT_EQ(std::filesystem::status(options.address).permissions() & std::filesystem::perms::others_all,
              std::filesystem::perms::none);
    EXPECT_THAT(error_of([&] { HttpServer(options, echo); }), HasSubstr("another server listens there"));
  }
  EXPECT_FALSE(std::filesystem::exists(options.address));
  {  // what a killed server leaves
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, options.address.c_str(), sizeof(name.sun_path) - 1);
    const int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(bind(dead, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
    ::close(dead);
  }
  Running server(echo, options);
  Client client = Client::unix_socket(options.address);
  client.send(kGet);
  EXPECT_EQ(client.answer().status, 200);

  HttpOptions taken;
  taken.address = folder.path() / "file";
  std::ofstream(taken.address) << "data";
  EXPECT_THAT(error_of([&] { HttpServer(taken, echo); }), HasSubstr("can't listen at"));
  EXPECT_TRUE(std::filesystem::exists(taken.address));
}

class Tls : public testing::Test {
 protected:
  void SetUp() override {
    files_ = {folder_.path() / "cert.pem", folder_.path() / "key.pem"};
    const ChildResult made =
        run_child("/usr/bin/openssl",
                  {"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                   "/CN=localhost", "-days", "2", "-keyout", files_.key, "-out", files_.certificate});
    ASSERT_EQ(made.status, 0) << "openssl, of the package of that name, makes the certificate";
  }

  // A client that speaks one version; answers what it got, or "" where no connection came about.
  std::string ask(uint16_t port, const std::string& request, int version) {
    const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    SSL_CTX_set_security_level(context.get(), 0);
    SSL_CTX_set_min_proto_version(context.get(), version);
    SSL_CTX_set_max_proto_version(context.get(), version);
    Client client = Client::tcp(port);
    const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), SSL_free);
    SSL_set_fd(tls.get(), client.file());
    if (SSL_connect(tls.get()) != 1) return {};
    for (size_t at = 0; at < request.size();) {
      const int n = SSL_write(tls.get(), request.data() + at, static_cast<int>(request.size() - at));
      if (n <= 0) return {};
      at += static_cast<size_t>(n);
    }
    std::string all;
    char buffer[16384];
    for (int n; (n = SSL_read(tls.get(), buffer, sizeof(buffer))) > 0;) all.append(buffer, static_cast<size_t>(n));
    ended_cleanly_ = SSL_get_shutdown(tls.get()) == SSL_RECEIVED_SHUTDOWN;
    return all;
  }

  test::TemporaryFolder folder_;
  TlsFiles files_;
  bool ended_cleanly_ = false;
};

TEST_F(Tls, ServesVersions12And13AndNothingOlder) {
  HttpOptions options;
  options.tls = files_;
  Running server(
      [](Exchange e) {
        e.start({.type = "text/plain", .body = e.request().secure ? "secure " : "plain "});
        e.send(e.request().body);
        e.end();
      },
      options);
  const std::string body(1'000'000, 'b');
  const std::string request =
      "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n" + body;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const std::string answer = ask(server->port(), request, version);
    EXPECT_THAT(answer.substr(0, 200), StartsWith("HTTP/1.1 200 OK"));
    EXPECT_THAT(answer.substr(0, 500), HasSubstr("secure "));
    EXPECT_GT(answer.size(), body.size());
    EXPECT_TRUE(ended_cleanly_);
  }
  EXPECT_EQ(ask(server->port(), request, TLS1_1_VERSION), "");
  Client plain = server.client();  // who speaks no TLS gets no answer, and hurts nobody
  plain.send(kGet);
  EXPECT_THAT(plain.rest(), Not(HasSubstr("HTTP/1.1")));
  EXPECT_NE(ask(server->port(), request, TLS1_3_VERSION), "");
}

TEST_F(Tls, NoticesThatAWaitingClientHasLeft) {
  HttpOptions options;
  options.tls = files_;
  Kept kept;
  Running server(kept.handler(), options);
  std::thread asking([&] {
    const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    Client client = server.client();
    const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), SSL_free);
    SSL_set_fd(tls.get(), client.file());
    if (SSL_connect(tls.get()) == 1) SSL_write(tls.get(), kGet.data(), static_cast<int>(kGet.size()));
    while (server->load().streams == 0) std::this_thread::sleep_for(milliseconds(2));
  });
  Exchange exchange = kept.take();
  exchange.start({.type = "text/event-stream", .body = "x"});
  asking.join();
  EXPECT_TRUE(wait_until([&] { return exchange.gone(); }));
}

TEST_F(Tls, SaysWhichFileIsWrong) {
  HttpOptions options;
  options.port = 0;
  options.tls = TlsFiles{folder_.path() / "none.pem", files_.key};
  EXPECT_THAT(error_of([&] { HttpServer(options, echo); }), HasSubstr("none.pem: can't be read as a certificate"));
  options.tls = TlsFiles{files_.certificate, files_.certificate};
  EXPECT_THAT(error_of([&] { HttpServer(options, echo); }), HasSubstr("can't be read as the key of"));
  const std::filesystem::path other = folder_.path() / "other.pem";
  ASSERT_EQ(run_child("/usr/bin/openssl", {"genpkey", "-algorithm", "ed25519", "-out", other}).status, 0);
  options.tls = TlsFiles{files_.certificate, other};
  EXPECT_THAT(error_of([&] { HttpServer(options, echo); }), HasSubstr("can't be read as the key of"));
}

}  // namespace
}  // namespace thimble
