#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "serve/api_keys.h"

namespace thimble {

// What each key has used up. A minute's allowance may be spent at once, and grows back evenly (a token bucket, as RFC
// 2697 has it). One thread at a time.
class RateLimits {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // Counts a request; or, where it is one too many or its key's tokens are overdrawn, says in how many seconds (at
  // least one, rounded up) to come again.
  std::optional<int> request(const ApiKey& key, Time now);

  // Counts tokens. They are known only when an answer is done: the allowance may be overdrawn, which the requests that
  // follow wait for.
  void tokens(const ApiKey& key, int64_t count, Time now);

  int requests_left(const ApiKey& key, Time now);
  void forget_others(const ApiKeys& keys);  // keys that are gone

 private:
  struct Used {
    double requests_left = 0, tokens_left = 0;
    Time at{};
  };
  Used& grown(const ApiKey& key, Time now);

  std::map<std::string, Used, std::less<>> used_;  // by the key's digest: a new key of an old name starts anew
};

}  // namespace thimble
