#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_keys.h"
#include "serve/http.h"
#include "serve/rate_limit.h"

namespace thimble {

struct GuardPolicy {
  std::string address = "127.0.0.1";   // that the server listens at
  std::vector<std::string> hosts{};    // names by which it may be asked for, besides its own addresses
  std::vector<std::string> origins{};  // of web pages that may use it, such as https://chat.example.org; "*": any
  bool needs_key = false;
  ApiKeys keys{};
  // Need no key: what they tell is nobody's.
  std::vector<std::string> open_paths = {"/health", "/ready", "/", "/page.js", "/page.css", "/icon.svg"};
};

struct Admission {
  std::optional<HttpResponse> refusal{};        // then nothing else counts
  HttpFields headers{};                         // for every answer to this request
  std::shared_ptr<const ApiKey> key = nullptr;  // whose request it is; nullptr where no key is needed
};

// Whether a request may be answered, as far as it alone says so.
// - Its Host must be the server's: a page of another name whose name was made to point here (DNS rebinding) would else
// be
//   the server's own page to a browser.
// - Its Origin, which browsers send along, must be the server's own or an allowed one, which gets CORS headers.
//   Preflights (Fetch standard, "CORS-preflight request") are answered, as a refusal of status 204.
// - Its key must be one of those known: `Authorization: Bearer KEY`, or `x-api-key: KEY`.
// A refusal is 401 or 403 with an OpenAI error body.
Admission admit(const HttpRequest& request, const GuardPolicy& policy);

// An address that only this machine reaches: 127.0.0.0/8, ::1, localhost, a Unix socket.
bool only_this_machine(std::string_view address);

// Throws Error where a server at this address would serve strangers: it is no loopback address, no key is needed, and
// nobody said so.
void check_exposure(std::string_view address, bool needs_key, bool said_so);

struct GuardOptions {
  std::string address = "127.0.0.1";
  std::vector<std::string> hosts{};
  std::vector<std::string> origins{};
  std::filesystem::path keys_file{};  // empty: no key is needed
};

// admit() with keys from a file, which is read again when it changes, and with their limits. Any thread.
class Guard {
 public:
  // Throws Error where the keys can't be read.
  explicit Guard(GuardOptions options);

  // Keys that can't be read any more let nobody in: 503. One request too many: 429 with Retry-After.
  Admission admit(const HttpRequest& request);

  // The tokens that an answer took, prompt included.
  void count_tokens(const ApiKey* key, int64_t count);  // nullptr: nobody's

 private:
  void read_keys_again();

  GuardOptions options_;
  std::mutex mutex_;
  GuardPolicy policy_;
  RateLimits limits_;
  std::string keys_error_;
  std::filesystem::file_time_type keys_time_{};
  std::chrono::steady_clock::time_point looked_{};
};

}  // namespace thimble
