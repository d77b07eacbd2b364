#include "serve/rate_limit.h"

#include <algorithm>
#include <cmath>

namespace thimble {
namespace {

int seconds_until(double missing, int per_minute) {
  return std::max(1, static_cast<int>(std::ceil(missing * 60.0 / per_minute)));
}

}  // namespace

RateLimits::Used& RateLimits::grown(const ApiKey& key, Time now) {
  const auto [found, is_new] = used_.try_emplace(key.sha256);
  Used& used = found->second;
  const double requests = key.requests_per_minute, tokens = key.tokens_per_minute;
  const double minutes = is_new ? 1 : std::chrono::duration<double>(now - used.at).count() / 60;
  used.requests_left = std::min(requests, used.requests_left + requests * minutes);
  used.tokens_left = std::min(tokens, used.tokens_left + tokens * minutes);
  used.at = now;
  return used;
}

std::optional<int> RateLimits::request(const ApiKey& key, Time now) {
  if (key.requests_per_minute == 0 && key.tokens_per_minute == 0) return std::nullopt;
  Used& used = grown(key, now);
  if (key.tokens_per_minute > 0 && used.tokens_left <= 0) {
    return seconds_until(std::min(1.0, double(key.tokens_per_minute)) - used.tokens_left, key.tokens_per_minute);
  }
  if (key.requests_per_minute == 0) return std::nullopt;
  if (used.requests_left < 1) return seconds_until(1 - used.requests_left, key.requests_per_minute);
  used.requests_left -= 1;
  return std::nullopt;
}

void RateLimits::tokens(const ApiKey& key, int64_t count, Time now) {
  if (key.tokens_per_minute > 0) grown(key, now).tokens_left -= static_cast<double>(count);
}

int RateLimits::requests_left(const ApiKey& key, Time now) {
  return std::max(0, static_cast<int>(grown(key, now).requests_left));
}

void RateLimits::forget_others(const ApiKeys& keys) {
  std::erase_if(used_, [&](const auto& entry) {
    return std::none_of(keys.begin(), keys.end(), [&](const auto& key) { return key->sha256 == entry.first; });
  });
}

}  // namespace thimble
