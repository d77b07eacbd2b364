// The server over real sockets. Requests are written as raw bytes, so that wrong ones can be sent too.
#include "serve/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
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
    const Answer answer = client.answer();
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
  const Answer head = client.head();
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

}  // namespace
}  // namespace thimble
