#include "infer/token_history.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace thimble {
namespace {

TokenHistory::Counts count(std::span<const int32_t> tokens) {
  TokenHistory::Counts counts;
  for (const int32_t token : tokens) ++counts[token];
  return counts;
}

TEST(TokenHistory, CountsAsIfCountedAnewThroughAcceptingAndTakingBack) {
  for (const size_t window : {0, 1, 3, 17, 1000}) {
    Random random(window);
    TokenHistory history(window);
    std::vector<int32_t> tokens, prompt;
    for (int i = 0; i < 40; ++i) prompt.push_back(static_cast<int32_t>(random.below(9)));
    history.prime(std::vector<int32_t>{1, 2, 3});  // forgotten by the next line
    history.prime(prompt);
    tokens = prompt;
    for (int step = 0; step < 300; ++step) {
      if (const size_t answered = tokens.size() - prompt.size(); answered > 0 && random.below(4) == 0) {
        const size_t back = 1 + random.below(std::min<size_t>(answered, 6));
        history.take_back(back);
        tokens.resize(tokens.size() - back);
      } else {
        tokens.push_back(static_cast<int32_t>(random.below(9)));
        history.accept(tokens.back());
      }
      const std::span<const int32_t> all = tokens;
      ASSERT_EQ(history.recent(), count(window == 0 || window > all.size() ? all : all.last(window)));
      ASSERT_EQ(history.answer(), count(all.subspan(prompt.size())));
      ASSERT_TRUE(std::equal(all.begin(), all.end(), history.tokens().begin(), history.tokens().end()));
    }
  }
}

}  // namespace
}  // namespace thimble
