// Who may ask a server that runs as its users start it: keys, names, origins; and that --offline still serves.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "program.h"
#include "serve/http_client.h"

namespace thimble {
namespace {

using test::Result;

class ServeGuard : public test::JobTest {
 protected:
  void TearDown() override {
    if (server_ > 0) {
      kill(server_, SIGTERM);
      waitpid(server_, nullptr, 0);
    }
    test::JobTest::TearDown();
  }

  // Starts the program; its port is read from what it prints.
  void serve(const std::vector<std::string>& options) {
    const std::string out = (folder_ / "out").string();
    std::vector<std::string> all = {THIMBLE_BINARY, "serve", test::stories_model().string(), "--port", "0"};
    all.insert(all.end(), options.begin(), options.end());
    server_ = fork();
    ASSERT_GE(server_, 0);
    if (server_ == 0) {
      std::vector<char*> arguments;
      for (auto& a : all) arguments.push_back(a.data());
      arguments.push_back(nullptr);
      if (freopen(out.c_str(), "w", stdout) == nullptr) _exit(126);
      execv(THIMBLE_BINARY, arguments.data());
      _exit(127);
    }
    for (int i = 0; i < 1500 && port_ == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      std::ifstream file(out);
      std::stringstream text;
      text << file.rdbuf();
      const std::string printed = text.str();
      const size_t from = printed.find("127.0.0.1:");
      if (printed.find('\n') != printed.npos && from != printed.npos) port_ = std::stoi(printed.substr(from + 10));
    }
    ASSERT_GT(port_, 0) << "the server did not start";
  }

  HttpAnswer ask(const std::string& headers, const std::string& body = "",
                       const std::string& host = "localhost") {
    Client client = Client::tcp(static_cast<uint16_t>(port_));
    const std::string line = body.empty() ? "GET /v1/models" : "POST /v1/completions";
    client.send(line + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" + headers +
                "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return client.answer();
  }

  pid_t server_ = -1;
  int port_ = 0;
};

TEST_F(ServeGuard, LetsInWhoHasAKeyForTheModel) {
  THIMBLE_REQUIRE_STORIES();
  const std::string file = (folder_ / "keys.jsonl").string();
  const auto key = [&](const std::string& options) {
    const std::string printed = test::thimble("keys add " + options + " --file '" + file + "'").out;
    return "Authorization: Bearer " + printed.substr(0, printed.size() - 1) + "\r\n";
  };
  const std::string all = key("alice"), other = key("bob --models none"), few = key("carol --tokens-per-minute 1");
  serve({"--keys", file, "--allow-origin", "https://chat.example.org", "--offline"});
  if (HasFatalFailure()) return;
  EXPECT_EQ(ask("").status, 401);
  EXPECT_EQ(ask("Authorization: Bearer wrong\r\n").status, 401);
  EXPECT_EQ(ask(all, "", "evil.example").status, 403);
  EXPECT_EQ(ask(all + "Origin: https://evil.example\r\n").status, 403);
  const auto page = ask(all + "Origin: https://chat.example.org\r\n");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.header("access-control-allow-origin"), "https://chat.example.org");

  // In the form of the API whose path it is.
  Client messages = Client::tcp(static_cast<uint16_t>(port_));
  messages.send("POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}");
  const auto refused = messages.answer();
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.header("www-authenticate"), "Bearer");
  EXPECT_EQ(nlohmann::json::parse(refused.body)["type"], "error");

  const std::string body = R"({"prompt": "Once upon a time", "max_tokens": 5})";
  const auto answer = ask(all, body);
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(nlohmann::json::parse(answer.body)["usage"]["completion_tokens"], 5);
  EXPECT_EQ(ask(other, body).status, 403);
  EXPECT_EQ(nlohmann::json::parse(ask(other).body)["data"].size(), 0u);
  EXPECT_EQ(nlohmann::json::parse(ask(all).body)["data"].size(), 1u);
  EXPECT_EQ(ask(few, body).status, 200);
  const auto overdrawn = ask(few, body);
  EXPECT_EQ(overdrawn.status, 429);
  EXPECT_GT(std::stoi(overdrawn.header("retry-after")), 60);
}

TEST_F(ServeGuard, DoesNotStartWhereStrangersReachIt) {
  THIMBLE_REQUIRE_STORIES();
  const Result r =
      test::thimble("serve '" + test::stories_model().string() + "' --port 0 --host 0.0.0.0 --keys /none/keys.jsonl");
  EXPECT_EQ(r.status, 2);
  const Result open = test::thimble("serve '" + test::stories_model().string() + "' --port 0 --host 0.0.0.0");
  EXPECT_EQ(open.status, 2);
  EXPECT_NE(open.err.find("thimble keys add NAME"), std::string::npos) << open.err;
}

}  // namespace
}  // namespace thimble
