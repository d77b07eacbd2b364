#include "infer/sampling_options.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"

namespace thimble {
namespace {

struct Real {
  const char* name;
  float SamplingOptions::* value;
  float low, high;
  const char* must;
  bool above = false;  // whether `low` itself is refused
};
constexpr Real kReals[] = {
    {"temperature", &SamplingOptions::temperature, 0, 100, "be between 0 (greedy) and 100"},
    {"top-p", &SamplingOptions::top_p, 0, 1, "be above 0 and at most 1 (off)", true},
    {"min-p", &SamplingOptions::min_p, 0, 1, "be between 0 (off) and 1"},
    {"typical", &SamplingOptions::typical, 0, 1, "be above 0 and at most 1 (off)", true},
    {"repeat penalty", &SamplingOptions::repeat_penalty, 0, 100, "be above 0 and at most 100 (1: off)", true},
    {"presence penalty", &SamplingOptions::presence_penalty, -2, 2, "be between -2 and 2 (0: off)"},
    {"frequency penalty", &SamplingOptions::frequency_penalty, -2, 2, "be between -2 and 2 (0: off)"},
    {"DRY multiplier", &SamplingOptions::dry_multiplier, 0, 100, "be between 0 (off) and 100"},
    {"DRY base", &SamplingOptions::dry_base, 1, 100, "be between 1 and 100"},
};

struct Whole {
  const char* name;
  int SamplingOptions::* value;
  int low;
  const char* must;
};
constexpr Whole kWholes[] = {
    {"top-k", &SamplingOptions::top_k, 0, "be 0 (off) or more"},
    {"repeat window", &SamplingOptions::repeat_window, 0, "be 0 (all tokens) or more"},
    {"DRY allowed length", &SamplingOptions::dry_allowed_length, 1, "be 1 or more"},
    {"DRY window", &SamplingOptions::dry_window, 0, "be 0 (all tokens) or more"},
};

constexpr size_t kLongestBreaker = 40;  // bytes; every token's text is compared with every breaker

}  // namespace

bool SamplingOptions::penalizes() const {
  return repeat_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0 || dry_multiplier > 0;
}

bool SamplingOptions::filters() const { return top_k > 0 || typical < 1 || top_p < 1 || min_p > 0; }

void check(const SamplingOptions& o, int32_t vocab) {
  for (const Real& r : kReals) {
    const float value = o.*r.value;
    if (!(value >= r.low && value <= r.high) || (r.above && value == r.low))
      throw Error(fmt::format("{} {}: must {}", r.name, value, r.must));
  }
  for (const Whole& w : kWholes)
    if (o.*w.value < w.low) throw Error(fmt::format("{} {}: must {}", w.name, o.*w.value, w.must));
  for (const std::string& breaker : o.dry_breakers)
    if (breaker.empty() || breaker.size() > kLongestBreaker)
      throw Error(fmt::format("DRY breaker '{}': must have between 1 and {} bytes", breaker, kLongestBreaker));
  std::vector<int32_t> biased;
  for (const TokenBias& b : o.logit_bias) {
    if (b.token < 0 || b.token >= vocab)
      throw Error(fmt::format("logit bias of token {}: the model's tokens are 0 to {}", b.token, vocab - 1));
    if (!(b.bias >= -100 && b.bias <= 100))
      throw Error(fmt::format("logit bias {} of token {}: must be between -100 and 100", b.bias, b.token));
    biased.push_back(b.token);
  }
  std::sort(biased.begin(), biased.end());
  if (const auto twice = std::adjacent_find(biased.begin(), biased.end()); twice != biased.end())
    throw Error(fmt::format("logit bias: token {} is given twice; give it once", *twice));
}

}  // namespace thimble
