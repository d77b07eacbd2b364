#include "serve/rate_limit.h"

#include <gtest/gtest.h>

namespace thimble {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const RateLimits::Time kStart{seconds(1000)};

TEST(RateLimits, LetAMinutesRequestsComeAtOnceAndThenEvenly) {
  RateLimits limits;
  const ApiKey key{.name = "a", .sha256 = "a", .requests_per_minute = 30};
  for (int i = 0; i < 30; ++i) EXPECT_EQ(limits.request(key, kStart), std::nullopt);
  EXPECT_EQ(limits.requests_left(key, kStart), 0);
  EXPECT_EQ(limits.request(key, kStart), 2);
  EXPECT_EQ(limits.request(key, kStart + milliseconds(1900)), 1);
  EXPECT_EQ(limits.request(key, kStart + milliseconds(2001)), std::nullopt);
  EXPECT_EQ(limits.request(key, kStart + milliseconds(2002)), 2);
  const auto later = kStart + seconds(3600);  // no more than a minute's is saved up
  for (int i = 0; i < 30; ++i) EXPECT_EQ(limits.request(key, later), std::nullopt);
  EXPECT_NE(limits.request(key, later), std::nullopt);
}

TEST(RateLimits, MakeWhoOverdrewTokensWait) {
  RateLimits limits;
  const ApiKey key{.name = "a", .sha256 = "a", .tokens_per_minute = 600};
  EXPECT_EQ(limits.request(key, kStart), std::nullopt);
  limits.tokens(key, 900, kStart);  // 300 too many: 30 s
  EXPECT_EQ(limits.request(key, kStart), 31);
  EXPECT_EQ(limits.request(key, kStart + seconds(29)), 2);
  EXPECT_EQ(limits.request(key, kStart + milliseconds(30'200)), std::nullopt);
}

TEST(RateLimits, CountEachKeyAlone) {
  RateLimits limits;
  const ApiKey one{.name = "a", .sha256 = "1", .requests_per_minute = 1};
  const ApiKey other{.name = "a", .sha256 = "2", .requests_per_minute = 1};
  const ApiKey unlimited{.name = "c", .sha256 = "3"};
  EXPECT_EQ(limits.request(one, kStart), std::nullopt);
  EXPECT_NE(limits.request(one, kStart), std::nullopt);
  EXPECT_EQ(limits.request(other, kStart), std::nullopt);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(limits.request(unlimited, kStart), std::nullopt);
  limits.forget_others({});
  EXPECT_EQ(limits.request(one, kStart), std::nullopt);
}

}  // namespace
}  // namespace thimble
