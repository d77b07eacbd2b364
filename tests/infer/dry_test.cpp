// Against a plain reference: tests/infer/sampler_test.cpp, by make_sampler_goldens.py. Here what it lacks.
#include "infer/dry.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/model.h"
#include "stories.h"

namespace thimble {
namespace {

std::vector<float> penalties(const std::vector<int32_t>& tokens, const DrySettings& settings,
                             const SequenceBreakers& breakers = {}) {
  std::vector<float> logits(10);
  apply_dry(tokens, settings, breakers, logits);
  for (float& v : logits) v = -v;
  return logits;
}

TEST(Dry, GrowsWithTheRepetitionThatATokenWouldGoOnWith) {
  // After 1 2 3 stood 4, after 3 alone 5: 4 would make 3 tokens 4, 5 makes 1 token 2.
  const DrySettings settings{.multiplier = 2, .base = 3, .allowed_length = 1};
  const std::vector<float> expected = {0, 0, 0, 0, 2 * 9, 2 * 1, 0, 0, 0, 0};
  EXPECT_EQ(penalties({1, 2, 3, 4, 3, 5, 1, 2, 3}, settings), expected);
}

TEST(Dry, LeavesRepetitionsThatAreAllowed) {
  const DrySettings settings{.multiplier = 1, .base = 2, .allowed_length = 3};
  EXPECT_EQ(penalties({1, 2, 4, 1, 2}, settings), std::vector<float>(10));
  EXPECT_EQ(penalties({7, 1, 2, 4, 7, 1, 2}, settings)[4], 1);
}

TEST(Dry, StaysFiniteForEndlessRepetition) {
  const float most = penalties(std::vector<int32_t>(5000, 3), {.multiplier = 1, .base = 100, .allowed_length = 1})[3];
  EXPECT_GT(most, 1e29f);
  EXPECT_TRUE(std::isfinite(most));
}

// Token 3 is written "<3>".
SequenceBreakers breakers(std::vector<std::string> texts) {
  static const std::vector<std::string> bytes = {"<0>", "<1>", "<2>", "<3>", "<4>", "<5>", "<6>", "<7>", "<8>", "<9>"};
  return {[](int32_t token) -> std::string_view { return bytes[static_cast<size_t>(token)]; }, std::move(texts)};
}

TEST(Dry, DoesNotReachAcrossABreaker) {
  const DrySettings settings{.multiplier = 1, .base = 2, .allowed_length = 1};
  // 1 9 2 3 | 1 9 2: behind the breaker only the 2 repeats.
  EXPECT_EQ(penalties({1, 9, 2, 3, 1, 9, 2}, settings)[3], 4);
  EXPECT_EQ(penalties({1, 9, 2, 3, 1, 9, 2}, settings, breakers({"9"}))[3], 1);
  // 9 alone is no breaker where it takes 9 1.
  EXPECT_EQ(penalties({1, 9, 2, 3, 1, 9, 2}, settings, breakers({"<9><1>"}))[3], 4);
  EXPECT_EQ(penalties({5, 9, 1, 3, 5, 9, 1}, settings, breakers({"<9><1>"})), std::vector<float>(10));
  // A breaker may be said again.
  EXPECT_EQ(penalties({1, 2, 9, 4, 1, 2}, settings, breakers({"9"}))[4], 0);
  EXPECT_EQ(penalties({1, 9, 2, 1}, settings)[9], 1);
  EXPECT_EQ(penalties({1, 9, 2, 1}, settings, breakers({"9"}))[9], 0);
}

TEST(SequenceBreakers, AreFoundWhateverTokensWroteThem) {
  const auto since = [](const std::string& text, const std::vector<int32_t>& tokens) {
    return breakers({text}).since_last(tokens);
  };
  EXPECT_EQ(since("x", {1, 2, 3}), 3u);
  EXPECT_EQ(since("3", {1, 2, 3}), 0u);
  EXPECT_EQ(since("<1>", {1, 2, 3}), 2u);
  EXPECT_EQ(since("><", {1, 2, 3}), 0u);
  EXPECT_EQ(since("1><2", {1, 2, 3}), 1u);
  EXPECT_EQ(since("1><2", {1, 3, 2}), 3u);
  EXPECT_EQ(since("><2><", {1, 2, 3, 4, 5}), 2u);
  EXPECT_EQ(since("<1><2><3><4>", {1, 2, 3, 4, 5, 1, 2, 3}), 4u);
  EXPECT_EQ(since("<1>", {}), 0u);
  EXPECT_EQ(breakers({"<2>", "<4>"}).since_last(std::vector<int32_t>{4, 1, 2, 1, 1}), 2u);
}

TEST(SequenceBreakers, KnowATokenizersTokens) {
  THIMBLE_REQUIRE_STORIES();
  const Tokenizer tokenizer = Tokenizer::from(load_model(test::stories_model())->vocabulary);
  const SequenceBreakers known(tokenizer, {"\n", "Once upon"});
  const auto after = [&](const std::string& text) { return known.since_last(tokenizer.encode(text)); };
  const size_t whole = tokenizer.encode("a big dog").size();
  EXPECT_EQ(after("a big dog"), whole);
  EXPECT_GT(after("Once upon a time"), 0u);
  EXPECT_LT(after("Once upon a time"), tokenizer.encode("a time").size() + 1);
  EXPECT_EQ(after("a big dog\n"), 0u);
  EXPECT_LT(after("a big\n dog"), whole);
}

}  // namespace
}  // namespace thimble
