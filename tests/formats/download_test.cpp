#include "formats/download.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>

#include <cstdio>
#include <cstdlib>

#include "core/atomic_file.h"
#include "core/sha256.h"
#include "formats/loopback_server.h"
#include "formats/temporary_folder.h"

namespace thimble {
namespace {

using test::error_of;
using test::file_answer;
using test::http_answer;
using test::HttpRequest;
using test::LoopbackServer;
using ::testing::HasSubstr;

std::string body_of(size_t bytes, char first = 'a') {
  std::string body(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) body[i] = static_cast<char>(first + static_cast<char>(i % 23));
  return body;
}

DownloadOptions once() { return {.bearer_token = "", .sha256 = "", .attempts = 1, .retry_seconds = 0}; }

size_t files_in(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

TEST(Download, FetchesAFileAndLeavesNothingElse) {
  const test::TemporaryFolder folder;
  const std::string body = body_of(300000);
  const LoopbackServer server([&](const HttpRequest& r) { return file_answer(r, body, "\"1\""); });
  double seen = 0;
  download(server.url("/m.gguf"), folder / "m.gguf", once(), [&](const Progress& p) {
    EXPECT_GE(p.done, seen);
    EXPECT_EQ(p.total, 300000);
    seen = p.done;
  });
  EXPECT_EQ(seen, 300000);
  EXPECT_EQ(read_file(folder / "m.gguf"), body);
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(Download, GoesOnInALaterCallWhereTheConnectionWasCut) {
  const test::TemporaryFolder folder;
  const std::string body = body_of(200000);
  int answers = 0;
  const LoopbackServer server(
      [&](const HttpRequest& r) { return file_answer(r, body, "\"1\"", answers++ == 0 ? 70000 : body.size()); });
  EXPECT_THAT(error_of([&] { download(server.url("/m"), folder / "m", once(), {}); }), HasSubstr("can't be fetched"));
  EXPECT_FALSE(std::filesystem::exists(folder / "m"));
  EXPECT_EQ(std::filesystem::file_size(folder / "m.part"), 70000u);
  download(server.url("/m"), folder / "m", once(), {});
  EXPECT_EQ(read_file(folder / "m"), body);
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_EQ(server.requests()[1].headers.at("range"), "bytes=70000-");
  EXPECT_EQ(server.requests()[1].headers.at("if-range"), "\"1\"");
}

TEST(Download, GoesOnByItselfAfterSeveralCuts) {
  const test::TemporaryFolder folder;
  const std::string body = body_of(100000);
  const LoopbackServer server([&](const HttpRequest& r) { return file_answer(r, body, "\"1\"", 30000); });
  DownloadOptions options = once();
  options.attempts = 4;
  download(server.url("/m"), folder / "m", options, {});
  EXPECT_EQ(read_file(folder / "m"), body);
  EXPECT_EQ(server.requests().size(), 4u);
}

TEST(Download, BeginsAnewWhereTheFileHasChanged) {
  const test::TemporaryFolder folder;
  const std::string first = body_of(100000), second = body_of(90000, 'A');
  int answers = 0;
  const LoopbackServer server([&](const HttpRequest& r) {
    return answers++ == 0 ? file_answer(r, first, "\"1\"", 50000) : file_answer(r, second, "\"2\"");
  });
  EXPECT_NE(error_of([&] { download(server.url("/m"), folder / "m", once(), {}); }), "");
  download(server.url("/m"), folder / "m", once(), {});
  EXPECT_EQ(read_file(folder / "m"), second);
}

TEST(Download, BeginsAnewWhereAServerWithoutETagsGivesAnotherLength) {
  const test::TemporaryFolder folder;
  const std::string first = body_of(100000), second = body_of(120000, 'A');
  int answers = 0;
  const LoopbackServer server([&](const HttpRequest& r) {  // W/: weak, so of no use for If-Range
    return answers++ == 0 ? file_answer(r, first, "W/\"1\"", 50000) : file_answer(r, second, "W/\"1\"");
  });
  DownloadOptions options = once();
  options.attempts = 3;
  download(server.url("/m"), folder / "m", options, {});
  EXPECT_EQ(read_file(folder / "m"), second);
  EXPECT_EQ(server.requests().size(), 3u);
}

TEST(Download, DoesNotGoOnWithThePartOfAnotherAddress) {
  const test::TemporaryFolder folder;
  const std::string body = body_of(50000);
  const LoopbackServer server(
      [&](const HttpRequest& r) { return file_answer(r, body, "\"1\"", r.path == "/a" ? 20000 : body.size()); });
  EXPECT_NE(error_of([&] { download(server.url("/a"), folder / "m", once(), {}); }), "");
  download(server.url("/b"), folder / "m", once(), {});
  EXPECT_EQ(server.requests()[1].headers.count("range"), 0u);
  EXPECT_EQ(read_file(folder / "m"), body);
}

TEST(Download, KeepsNothingWhereTheHashIsWrong) {
  const test::TemporaryFolder folder;
  const std::string body = body_of(1000);
  const LoopbackServer server([&](const HttpRequest& r) { return file_answer(r, body, "\"1\""); });
  DownloadOptions options = once();
  options.sha256 = sha256("other", 5);
  EXPECT_THAT(error_of([&] { download(server.url("/m"), folder / "m", options, {}); }), HasSubstr("has sha256"));
  EXPECT_EQ(files_in(folder.path()), 0u);
  options.sha256 = sha256(body.data(), body.size());
  download(server.url("/m"), folder / "m", options, {});
  EXPECT_EQ(read_file(folder / "m"), body);
}

TEST(Download, ChecksTheHashThatTheHubAnnouncesBeforeItRedirects) {
  const test::TemporaryFolder folder;
  const std::string body = body_of(1000);
  const std::string wrong = sha256("other", 5);
  const LoopbackServer server([&](const HttpRequest& r) {
    if (r.path == "/m")
      return http_answer("302 Found", "moved", "Location: /cdn\r\nX-Linked-Etag: \"" + wrong + "\"\r\n");
    return file_answer(r, body, "\"1\"");
  });
  EXPECT_THAT(error_of([&] { download(server.url("/m"), folder / "m", once(), {}); }), HasSubstr(wrong));
}

TEST(Download, SaysWhatTheServerRefuses) {
  const test::TemporaryFolder folder;
  const LoopbackServer server([&](const HttpRequest& r) {
    if (r.path.starts_with("/missing")) return http_answer("404 Not Found", "<html>");
    if (r.path == "/gated") return http_answer("401 Unauthorized", "");
    if (r.path == "/broken") return http_answer("503 Service Unavailable", "");
    return http_answer("302 Found", "", "Location: /circle\r\n");
  });
  const auto refusal = [&](const std::string& url) {
    return error_of([&] { download(url, folder / "m", once(), {}); });
  };
  EXPECT_THAT(refusal(server.url("/missing?token=secret")), HasSubstr("is not there (HTTP status 404)"));
  EXPECT_THAT(refusal(server.url("/missing?token=secret")), Not(HasSubstr("secret")));
  EXPECT_THROW(download(server.url("/missing"), folder / "m", once(), {}), HttpNotFound);
  EXPECT_THAT(refusal(server.url("/gated")), HasSubstr("HF_TOKEN"));
  EXPECT_THAT(refusal(server.url("/broken")), HasSubstr("HTTP status 503"));
  EXPECT_THAT(refusal(server.url("/circle")), HasSubstr("redirects"));
  EXPECT_THAT(refusal("http://127.0.0.1:1/m"), HasSubstr("can't be fetched"));
  EXPECT_THAT(refusal("file:///etc/hostname"), HasSubstr("can't be fetched"));
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(Download, TriesAgainAfterAPassingServerError) {
  const test::TemporaryFolder folder;
  int answers = 0;
  const LoopbackServer server([&](const HttpRequest& r) {
    return answers++ == 0 ? http_answer("503 Service Unavailable", "") : file_answer(r, "body", "\"1\"");
  });
  DownloadOptions options = once();
  options.attempts = 2;
  download(server.url("/m"), folder / "m", options, {});
  EXPECT_EQ(read_file(folder / "m"), "body");
}

TEST(Download, RefusesToShareAFileWithAnotherProcess) {
  const test::TemporaryFolder folder;
  const int other = ::open((folder / "m.part").c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  EXPECT_THAT(error_of([&] { download("http://127.0.0.1:1/m", folder / "m", once(), {}); }),
              HasSubstr("another process"));
  ::close(other);
}

TEST(Download, RefusesACertificateThatNobodyKnownSigned) {
  const test::TemporaryFolder folder;
  const std::string at = "cd '" + folder.path().string() + "' && ";
  ASSERT_EQ(std::system((at + "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -days 2 -subj "
                              "/CN=localhost -addext subjectAltName=IP:127.0.0.1 2> log")
                            .c_str()),
            0);
  // The server says which port it got, after its process number.
  std::FILE* server = ::popen((at + "echo $$ && exec openssl s_server -accept 127.0.0.1:0 -cert certificate -key key "
                                    "-WWW 2> log")
                                  .c_str(),
                              "r");
  int process = 0, port = 0;
  char line[256];
  while (port == 0 && std::fgets(line, sizeof line, server) != nullptr) {
    if (process == 0) process = std::atoi(line);
    std::sscanf(line, "ACCEPT 127.0.0.1:%d", &port);
  }
  ASSERT_NE(port, 0);
  const std::string url = "https://127.0.0.1:" + std::to_string(port) + "/certificate";
  EXPECT_THAT(error_of([&] { download(url, folder / "m", once(), {}); }), HasSubstr("certificate"));
  EXPECT_FALSE(std::filesystem::exists(folder / "m"));
  // The same server answers those who trust it: what failed was the check.
  EXPECT_EQ(std::system((at +
                         "echo 'GET /certificate HTTP/1.0\n' | openssl s_client -quiet -verify_return_error -CAfile "
                         "certificate -connect 127.0.0.1:" +
                         std::to_string(port) + " 2> log | grep -q CERTIFICATE")
                            .c_str()),
            0);
  ::kill(process, SIGTERM);
  ::pclose(server);
}

TEST(DownloadText, SendsTheTokenToTheHostItIsFor) {
  const LoopbackServer server([&](const HttpRequest&) { return http_answer("200 OK", "{}"); });
  DownloadOptions options = once();
  options.bearer_token = "hf_x";
  EXPECT_EQ(download_text(server.url("/api"), options), "{}");
  EXPECT_EQ(server.requests().at(0).headers.at("authorization"), "Bearer hf_x");
}

}  // namespace
}  // namespace thimble
