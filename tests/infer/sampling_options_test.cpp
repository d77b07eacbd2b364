#include "infer/sampling_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace thimble {
namespace {

struct Refusal {
  SamplingOptions options;
  std::vector<const char*> said;
};

const std::vector<Refusal>& refusals() {
  static const std::vector<Refusal> all = {
      {{.temperature = -0.1f}, {"temperature -0.1", "between 0 (greedy) and 100"}},
      {{.temperature = 101}, {"temperature 101"}},
      {{.temperature = NAN}, {"temperature nan"}},
      {{.temperature = INFINITY}, {"temperature inf"}},
      {{.top_k = -1}, {"top-k -1", "0 (off) or more"}},
      {{.top_p = 0}, {"top-p 0", "above 0 and at most 1"}},
      {{.top_p = 1.01f}, {"top-p 1.01"}},
      {{.min_p = -0.5f}, {"min-p -0.5", "between 0 (off) and 1"}},
      {{.min_p = 1.5f}, {"min-p 1.5"}},
      {{.typical = 0}, {"typical 0", "above 0 and at most 1"}},
      {{.typical = 2}, {"typical 2"}},
      {{.repeat_penalty = 0}, {"repeat penalty 0", "above 0 and at most 100"}},
      {{.repeat_penalty = -1}, {"repeat penalty -1"}},
      {{.repeat_window = -1}, {"repeat window -1", "0 (all tokens) or more"}},
      {{.presence_penalty = -2.5f}, {"presence penalty -2.5", "between -2 and 2"}},
      {{.presence_penalty = 3}, {"presence penalty 3"}},
      {{.frequency_penalty = 2.5f}, {"frequency penalty 2.5", "between -2 and 2"}},
      {{.frequency_penalty = NAN}, {"frequency penalty nan"}},
      {{.dry_multiplier = -1}, {"DRY multiplier -1", "between 0 (off) and 100"}},
      {{.dry_base = 0.5f}, {"DRY base 0.5", "between 1 and 100"}},
      {{.dry_allowed_length = 0}, {"DRY allowed length 0", "1 or more"}},
      {{.dry_window = -1}, {"DRY window -1"}},
      {{.dry_breakers = {""}}, {"DRY breaker ''", "between 1 and 40 bytes"}},
      {{.dry_breakers = {std::string(41, 'x')}}, {"DRY breaker 'xxx"}},
      {{.logit_bias = {{-1, 1}}}, {"token -1", "0 to 99"}},
      {{.logit_bias = {{100, 1}}}, {"token 100", "0 to 99"}},
      {{.logit_bias = {{5, 101}}}, {"logit bias 101 of token 5", "between -100 and 100"}},
      {{.logit_bias = {{5, NAN}}}, {"token 5"}},
      {{.logit_bias = {{5, 1}, {6, 1}, {5, 2}}}, {"token 5", "twice"}},
  };
  return all;
}

TEST(SamplingOptions, RefuseWhatCannotBeInOneSentenceEach) {
  for (const Refusal& r : refusals()) {
    try {
      check(r.options, 100);
      ADD_FAILURE() << "was taken: " << r.said.front();
    } catch (const Error& error) {
      for (const char* part : r.said) EXPECT_THAT(error.what(), testing::HasSubstr(part));
    }
  }
}

TEST(SamplingOptions, TakeTheirLimits) {
  EXPECT_NO_THROW(check({}, 100));
  EXPECT_NO_THROW(check({.temperature = 100, .top_k = 1 << 30, .top_p = 1, .min_p = 1, .typical = 1}, 100));
  EXPECT_NO_THROW(check({.repeat_penalty = 100, .presence_penalty = -2, .frequency_penalty = 2}, 100));
  EXPECT_NO_THROW(check({.dry_multiplier = 100, .dry_base = 1, .dry_allowed_length = 1, .dry_breakers = {}}, 100));
  EXPECT_NO_THROW(check({.logit_bias = {{0, -100}, {99, 100}}}, 100));
}

}  // namespace
}  // namespace thimble
