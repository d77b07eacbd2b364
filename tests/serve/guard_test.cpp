#include "serve/guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/atomic_file.h"
#include "formats/temporary_folder.h"

namespace thimble {
namespace {

using test::error_of;
using testing::HasSubstr;

HttpRequest request(HttpFields headers, std::string method = "POST", std::string path = "/v1/chat/completions") {
  HttpRequest r;
  r.method = std::move(method);
  r.path = std::move(path);
  r.headers = std::move(headers);
  return r;
}

int status_of(const Admission& a) { return a.refusal ? a.refusal->status : 200; }

std::string header_of(const HttpFields& fields, std::string_view name) {
  for (const auto& [n, value] : fields) {
    if (n == name) return value;
  }
  return "";
}

std::string code_of(const Admission& a) {
  return a.refusal ? nlohmann::json::parse(a.refusal->body)["error"]["code"].get<std::string>() : "";
}

TEST(Guard, AnswersToItsOwnNamesOnly) {
  GuardPolicy policy;
  policy.hosts = {"ai.example.org"};
  for (const std::string host : {"localhost", "localhost:8080", "LOCALHOST.", "127.0.0.1:8080", "[::1]:8080", "[::1]",
                                 "ai.example.org", "AI.example.org:443"}) {
    EXPECT_EQ(status_of(admit(request({{"Host", host}}), policy)), 200) << host;
  }
  for (const std::string host :
       {"evil.example", "localhost.evil.example", "ai.example.org.evil.example", "", ":8080", "192.168.1.7", "[::1",
        "[::1]x", "localhost:80:90", "127.0.0.1.nip.io", "2130706433"}) {
    const Admission a = admit(request({{"Host", host}}), policy);
    EXPECT_EQ(status_of(a), 403) << host;
    EXPECT_EQ(code_of(a), "host_not_allowed");
  }
}

TEST(Guard, AnswersToTheAddressThatItListensAt) {
  GuardPolicy policy;
  policy.address = "192.168.1.7";
  EXPECT_EQ(status_of(admit(request({{"Host", "192.168.1.7:8080"}}), policy)), 200);
  EXPECT_EQ(status_of(admit(request({{"Host", "192.168.1.8"}}), policy)), 403);
  policy.address = "fd00::7";
  EXPECT_EQ(status_of(admit(request({{"Host", "[FD00::7]:8080"}}), policy)), 200);
  policy.address = "0.0.0.0";  // any address, but no name: only names can be made to point elsewhere
  EXPECT_EQ(status_of(admit(request({{"Host", "10.1.2.3"}}), policy)), 200);
  EXPECT_EQ(status_of(admit(request({{"Host", "[fd00::7]"}}), policy)), 200);
  EXPECT_EQ(status_of(admit(request({{"Host", "evil.example"}}), policy)), 403);
}

TEST(Guard, LetsPagesOfOtherOriginsInOnlyWhereAllowed) {
  GuardPolicy policy;
  policy.hosts = {"ai.example.org"};
  policy.origins = {"https://chat.example.org"};
  struct Case {
    const char *host, *origin;
    bool secure;
    int status;
    bool cors;
  };
  for (const Case& c : {
           Case{"localhost:8080", "http://localhost:8080", false, 200, false},
           Case{"localhost", "http://localhost:80", false, 200, false},
           Case{"ai.example.org", "https://ai.example.org", false, 200, false},  // TLS ends at a proxy
           Case{"ai.example.org", "https://ai.example.org", true, 200, false},
           Case{"ai.example.org", "http://ai.example.org", true, 403, false},
           Case{"localhost:8080", "http://localhost:9090", false, 403, false},
           Case{"localhost:8080", "http://127.0.0.1:8080", false, 403, false},
           Case{"localhost:8080", "https://chat.example.org", false, 200, true},
           Case{"localhost:8080", "https://CHAT.example.org:443", false, 200, true},
           Case{"localhost:8080", "http://chat.example.org", false, 403, false},
           Case{"localhost:8080", "https://chat.example.org.evil.example", false, 403, false},
           Case{"localhost:8080", "null", false, 403, false},
           Case{"localhost:8080", "", false, 403, false},
           Case{"localhost:8080", "://", false, 403, false},
       }) {
    HttpRequest r = request({{"Host", c.host}, {"Origin", c.origin}});
    r.secure = c.secure;
    const Admission a = admit(r, policy);
    EXPECT_EQ(status_of(a), c.status) << c.host << " " << c.origin;
    EXPECT_EQ(header_of(a.headers, "Access-Control-Allow-Origin"), c.cors ? c.origin : "");
    EXPECT_EQ(header_of(a.headers, "Vary"), c.cors ? "Origin" : "");
    EXPECT_EQ(header_of(a.headers, "Access-Control-Allow-Credentials"), "");
  }
  policy.origins = {"*"};
  EXPECT_EQ(status_of(admit(request({{"Host", "localhost"}, {"Origin", "null"}}), policy)), 200);
}

TEST(Guard, AnswersPreflightsWithoutAKey) {
  GuardPolicy policy;
  policy.needs_key = true;
  policy.origins = {"https://chat.example.org"};
  const HttpFields asking = {{"Host", "localhost"},
                             {"Origin", "https://chat.example.org"},
                             {"Access-Control-Request-Method", "POST"},
                             {"Access-Control-Request-Headers", "authorization,x-stainless-os"}};
  const Admission a = admit(request(asking, "OPTIONS"), policy);
  ASSERT_EQ(status_of(a), 204);
  EXPECT_THAT(header_of(a.refusal->headers, "Access-Control-Allow-Methods"), HasSubstr("POST"));
  EXPECT_EQ(header_of(a.refusal->headers, "Access-Control-Allow-Headers"), "authorization,x-stainless-os");
  EXPECT_EQ(header_of(a.headers, "Access-Control-Allow-Origin"), "https://chat.example.org");
  policy.origins.clear();
  EXPECT_EQ(status_of(admit(request(asking, "OPTIONS"), policy)), 403);
  const Admission plain = admit(request({{"Host", "localhost"}}, "OPTIONS"), policy);
  EXPECT_EQ(status_of(plain), 204);
  EXPECT_THAT(header_of(plain.refusal->headers, "Allow"), HasSubstr("POST"));
}

TEST(Guard, AsksForAKeyThatItKnows) {
  const test::TemporaryFolder folder;
  const std::string alice = add_key(folder / "keys", {.name = "alice"}).text;
  const std::string bob = add_key(folder / "keys", {.name = "bob"}).text;
  GuardPolicy policy;
  policy.needs_key = true;
  policy.keys = read_keys(folder / "keys");
  const auto name_with = [&](HttpFields headers) {
    headers.emplace_back("Host", "localhost");
    const Admission a = admit(request(headers), policy);
    if (!a.refusal) return a.key->name;
    EXPECT_EQ(a.refusal->status, 401);
    EXPECT_EQ(header_of(a.refusal->headers, "WWW-Authenticate"), "Bearer");
    EXPECT_EQ(a.key, nullptr);
    return code_of(a);
  };
  EXPECT_EQ(name_with({{"Authorization", "Bearer " + alice}}), "alice");
  EXPECT_EQ(name_with({{"authorization", "bearer   " + bob}}), "bob");
  EXPECT_EQ(name_with({{"X-Api-Key", bob}}), "bob");
  EXPECT_EQ(name_with({}), "missing_api_key");
  EXPECT_EQ(name_with({{"Authorization", "Bearer"}}), "missing_api_key");
  EXPECT_EQ(name_with({{"Authorization", "Basic " + alice}}), "missing_api_key");
  EXPECT_EQ(name_with({{"Authorization", "Bearer " + alice + "x"}}), "invalid_api_key");
  EXPECT_EQ(name_with({{"Authorization", "Bearer " + alice.substr(0, 20)}}), "invalid_api_key");
  EXPECT_EQ(name_with({{"Authorization", "Bearer wrong"}, {"X-Api-Key", alice}}), "invalid_api_key");
  EXPECT_EQ(name_with({{"X-Api-Key", policy.keys[0]->sha256}}), "invalid_api_key");
  EXPECT_EQ(status_of(admit(request({{"Host", "localhost"}}, "GET", "/health"), policy)), 200);
  EXPECT_EQ(status_of(admit(request({{"Host", "localhost"}}, "GET", "/ready"), policy)), 200);  // as proxies ask
  EXPECT_EQ(status_of(admit(request({{"Host", "localhost"}}, "GET", "/health/x"), policy)), 401);
}

TEST(Guard, RefusesToServeStrangersUnlessTold) {
  for (const std::string address : {"127.0.0.1", "127.9.9.9", "::1", "localhost", "/run/thimble.sock"}) {
    EXPECT_EQ(error_of([&] { check_exposure(address, false, false); }), "") << address;
  }
  for (const std::string address : {"0.0.0.0", "::", "192.168.1.7", "128.0.0.1", "ai.example.org", ""}) {
    EXPECT_THAT(error_of([&] { check_exposure(address, false, false); }), HasSubstr("--no-keys")) << address;
    EXPECT_EQ(error_of([&] { check_exposure(address, true, false); }), "");
    EXPECT_EQ(error_of([&] { check_exposure(address, false, true); }), "");
  }
}

TEST(Guard, LimitsRequestsOfAKeyAndSaysWhenToComeAgain) {
  const test::TemporaryFolder folder;
  const std::string key = add_key(folder / "keys", {.name = "alice", .requests_per_minute = 2}).text;
  const std::string free = add_key(folder / "keys", {.name = "bob"}).text;
  Guard guard({.keys_file = folder / "keys"});
  const auto ask = [&](const std::string& with) {
    return guard.admit(request({{"Host", "localhost"}, {"Authorization", "Bearer " + with}}));
  };
  EXPECT_EQ(header_of(ask(key).headers, "X-RateLimit-Remaining-Requests"), "1");
  EXPECT_EQ(status_of(ask(key)), 200);
  const Admission third = ask(key);
  ASSERT_EQ(status_of(third), 429);
  EXPECT_EQ(code_of(third), "rate_limit_exceeded");
  const int wait = std::stoi(header_of(third.refusal->headers, "Retry-After"));
  EXPECT_GE(wait, 25);
  EXPECT_LE(wait, 30);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(status_of(ask(free)), 200);
  EXPECT_EQ(status_of(ask("wrong")), 401);
}

TEST(Guard, FollowsItsKeysFile) {
  const test::TemporaryFolder folder;
  const std::string alice = add_key(folder / "keys", {.name = "alice"}).text;
  Guard guard({.keys_file = folder / "keys"});
  const auto status = [&](const std::string& with) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1050));  // it looks once a second
    return status_of(guard.admit(request({{"Host", "localhost"}, {"Authorization", "Bearer " + with}})));
  };
  EXPECT_EQ(status(alice), 200);
  const std::string bob = add_key(folder / "keys", {.name = "bob"}).text;
  EXPECT_EQ(status(bob), 200);
  remove_key(folder / "keys", "alice");
  EXPECT_EQ(status(alice), 401);
  remove_key(folder / "keys", "bob");
  EXPECT_EQ(status(bob), 401);  // without any key left nobody is let in
  std::filesystem::remove(folder / "keys");
  EXPECT_EQ(status(bob), 503);
  const std::string carol = add_key(folder / "keys", {.name = "carol"}).text;
  EXPECT_EQ(status(carol), 200);
  write_file(folder / "keys", "no JSON\n");
  EXPECT_EQ(status(carol), 503);
}

TEST(Guard, RefusesOriginsAndHostsThatAreNone) {
  for (const std::string origin : {"chat.example.org", "https://", "https://a/b", "https://*.example.org", ""}) {
    EXPECT_THAT(error_of([&] { Guard guard({.origins = {origin}}); }), HasSubstr("--allow-origin")) << origin;
  }
  for (const std::string host : {"", "https://ai.example.org", "a/b", "a:b"}) {
    EXPECT_THAT(error_of([&] { Guard guard({.hosts = {host}}); }), HasSubstr("--allow-host")) << host;
  }
}

}  // namespace
}  // namespace thimble
