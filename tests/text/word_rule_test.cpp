#include "text/word_rule.h"

#include <gmock/gmock.h>

#include <random>
#include <string>
#include <vector>

#include "text/character_class.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"
#include "text/unicode_additions.h"
#include "text/utf8.h"

namespace thimble {
namespace {

// PCRE2's way: a group makes the expression another one, which finds the same.
Pattern compiled(std::string_view expression) { return Pattern::regex("(?:" + std::string(expression) + ")"); }

std::vector<size_t> ends_by_pcre2(const Pattern& pattern, std::string_view text) {
  std::vector<size_t> ends;
  size_t covered = 0;
  pattern.for_each(text, has_unicode_additions(text), [&](size_t begin, size_t end) {
    if (begin != covered) ends.push_back(begin);
    ends.push_back(covered = end);
  });
  if (covered != text.size()) ends.push_back(text.size());
  return ends;
}

std::vector<size_t> ends_by_rule(WordRule rule, std::string_view text) {
  std::vector<size_t> ends(text.size());
  if (!text.empty()) ends.resize(split_words(rule, text, 0, ends));
  return ends;
}

// Each digit apart, the rule in what lies between.
std::vector<size_t> ends_between_digits(const Pattern& digits, const Pattern& words, std::string_view text) {
  std::vector<size_t> ends;
  size_t begin = 0;
  for (const size_t end : ends_by_pcre2(digits, text)) {
    for (const size_t word : ends_by_pcre2(words, text.substr(begin, end - begin))) ends.push_back(begin + word);
    begin = end;
  }
  return ends;
}

char32_t any_character(std::mt19937& random) {
  constexpr char32_t kBelow[] = {0x80, 0x250, 0x3000, 0x10000, 0x20000, 0x110000};
  while (true) {
    const char32_t c = random() % kBelow[random() % std::size(kBelow)];
    if (c < 0xD800 || c >= 0xE000) return c;
  }
}

// What rules look at, and what lies beside it.
std::string nasty_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {" ",
                                                  "  ",
                                                  "\n",
                                                  "\r",
                                                  "\r\n",
                                                  "\t",
                                                  "\v",
                                                  "\f",
                                                  "\u00a0",
                                                  "\u0085",
                                                  "\u3000",
                                                  "\u2028",
                                                  "\u2029",
                                                  "\u180e",
                                                  "\u200b",
                                                  "\u1680",
                                                  "\x1c",
                                                  std::string(1, '\0'),
                                                  "'",
                                                  "''",
                                                  "'s",
                                                  "'S",
                                                  "'t",
                                                  "'T",
                                                  "'re",
                                                  "'Re",
                                                  "'rE",
                                                  "'ve",
                                                  "'VE",
                                                  "'m",
                                                  "'M",
                                                  "'ll",
                                                  "'lL",
                                                  "'l",
                                                  "'d",
                                                  "'D",
                                                  "'r",
                                                  "'v",
                                                  "'ſ",
                                                  "'\u212a",
                                                  "’s",
                                                  "s",
                                                  "re",
                                                  "l",
                                                  "a",
                                                  "Z",
                                                  "@",
                                                  "[",
                                                  "`",
                                                  "{",
                                                  "word",
                                                  "sevenLs",
                                                  "eightLet",
                                                  "nineLette",
                                                  "aVeryLongWordOfLetters",
                                                  "é",
                                                  "naïve",
                                                  "Straße",
                                                  "e\u0301",
                                                  "\u0301",
                                                  "\u0300\u0301",
                                                  "中",
                                                  "文字",
                                                  "ไทย",
                                                  "한국",
                                                  "अनु",
                                                  "😀",
                                                  "🏽",
                                                  "\u200d",
                                                  "1",
                                                  "12",
                                                  "123",
                                                  "1234",
                                                  "²",
                                                  "½",
                                                  "Ⅷ",
                                                  "٣",
                                                  "\U00011de3",
                                                  "\U00016ff5",
                                                  "\U00011dea",
                                                  "\U00031350",
                                                  "\U0001e4f1",
                                                  "\U0001e030",
                                                  "\U0001cc00",
                                                  "\u0897",
                                                  "\u0378",
                                                  "\U0010ffff",
                                                  "\ufffd",
                                                  ".",
                                                  "!?",
                                                  "--",
                                                  "_",
                                                  "$",
                                                  "(",
                                                  "\u00bf",
                                                  "—",
                                                  "…",
                                                  "，",
                                                  "\u00b7"};
  std::string text;
  const size_t parts = random() % 14;
  for (size_t i = 0; i < parts; ++i) {
    if (random() % 8 == 0) {
      append_utf8(text, any_character(random));
    } else {
      const size_t times = random() % 6 == 0 ? 1 + random() % 12 : 1;
      const std::string& part = kParts[random() % kParts.size()];
      for (size_t n = 0; n < times; ++n) text += part;
    }
  }
  if (random() % 16 == 0) {  // broken, then mended as encode does it
    for (size_t n = 0; n < 3 && !text.empty(); ++n) text[random() % text.size()] = static_cast<char>(random());
    text = replace_invalid_utf8(text);
  }
  return text;
}

constexpr int kTexts = 40000;

std::string shown(std::string_view text) {
  std::string out;
  for (const unsigned char byte : text)
    out += "\\x" + std::string(1, "0123456789abcdef"[byte / 16]) + "0123456789abcdef"[byte % 16];
  return out;
}

class EachExpression : public testing::TestWithParam<std::string_view> {};

TEST_P(EachExpression, FindsTheWordsThatPcre2Finds) {
  const std::optional<WordRule> rule = find_word_rule(GetParam());
  ASSERT_TRUE(rule);
  const Pattern pattern = compiled(GetParam()), known = Pattern::regex(GetParam());
  ASSERT_FALSE(pattern.word_rule());
  std::mt19937 random(7);
  for (int i = 0; i < kTexts; ++i) {
    const std::string text = nasty_text(random);
    const std::vector<size_t> wanted = ends_by_pcre2(pattern, text);
    ASSERT_EQ(ends_by_rule(*rule, text), wanted) << shown(text);
    if (i % 16 == 0) {
      ASSERT_EQ(ends_by_pcre2(known, text), wanted) << shown(text);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(WordRule, EachExpression,
                         testing::Values(kGpt2Pattern, kLlama3Pattern, kCl100kPattern, kQwen2Pattern, kBailingPattern),
                         [](const auto& test) { return "Expression" + std::to_string(test.index); });

TEST(WordRule, PutsDigitsApartAsTwoStepsDo) {
  const Pattern digits = compiled(kDigitPattern), words = compiled(kGpt2Pattern), known = Pattern::regex(kDigitPattern);
  std::mt19937 random(8);
  for (int i = 0; i < kTexts; ++i) {
    const std::string text = nasty_text(random);
    ASSERT_EQ(ends_by_rule(WordRule::kGpt2SingleDigits, text), ends_between_digits(digits, words, text)) << shown(text);
    ASSERT_EQ(ends_by_pcre2(known, text), ends_by_pcre2(digits, text)) << shown(text);
  }
}

TEST(WordRule, GivesTheSameWordsInParts) {
  std::mt19937 random(9);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = nasty_text(random);
    const std::vector<size_t> all = ends_by_rule(WordRule::kGpt2, text);
    std::vector<size_t> parts;
    std::array<size_t, 2> ends;
    for (size_t at = 0; at < text.size(); at = parts.back()) {
      const size_t n = split_words(WordRule::kGpt2, text, at, ends);
      parts.insert(parts.end(), ends.begin(), ends.begin() + static_cast<ptrdiff_t>(n));
    }
    ASSERT_EQ(parts, all) << shown(text);
  }
}

// Every character there is, against PCRE2's properties.
TEST(CharacterClass, IsTheGeneralCategorysFirstLetter) {
  using namespace character_class;
  const Pattern letter = Pattern::regex(R"(\p{L})"), number = Pattern::regex(R"(\p{N})"),
                space = Pattern::regex(R"(\s)");
  const Pattern digit = compiled(kDigitPattern);
  Pattern::Match match;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = to_utf8(c);
    const auto is = [&](const Pattern& pattern) { return pattern.find(text, 0, true, match); };
    const uint8_t wanted = is(letter)   ? kLetter
                           : is(number) ? kNumber
                           : is(space)  ? kSpace
                           : is(digit)  ? kNewNumber
                                        : kOther;
    ASSERT_EQ(c < 0x80 ? kOfByte[c] : beyond_ascii(c), wanted) << std::hex << static_cast<uint32_t>(c);
  }
}

TEST(PreTokenizer, KnowsWhichStepsAreAWordRule) {
  using Step = PreTokenizer::Step;
  using Behavior = PreTokenizer::Behavior;
  const auto split = [](std::string_view expression, Behavior behavior = Behavior::kIsolated, bool invert = false) {
    return Step(PreTokenizer::Split{Pattern::regex(expression), behavior, invert});
  };
  const auto byte_level = [](bool prefix, bool regex) { return Step(PreTokenizer::ByteLevel{prefix, regex}); };
  const auto rule = [](std::vector<Step> steps) {
    PreTokenizer pre;
    for (Step& step : steps) pre.add(std::move(step));
    return pre.word_rule();
  };
  EXPECT_EQ(rule({byte_level(false, true)}), WordRule::kGpt2);
  EXPECT_EQ(rule({split(kGpt2Pattern), byte_level(false, false)}), WordRule::kGpt2);
  EXPECT_EQ(rule({split(kDigitPattern), byte_level(false, true)}), WordRule::kGpt2SingleDigits);
  EXPECT_EQ(rule({split(kDigitPattern), split(kGpt2Pattern), byte_level(false, false)}), WordRule::kGpt2SingleDigits);
  EXPECT_EQ(rule({split(kLlama3Pattern), byte_level(false, false)}), WordRule::kLlama3);
  EXPECT_EQ(rule({split(kQwen2Pattern), byte_level(false, false)}), WordRule::kQwen2);
  // Whatever does more, less or something else is run step by step.
  EXPECT_EQ(rule({}), std::nullopt);
  EXPECT_EQ(rule({byte_level(true, true)}), std::nullopt);
  EXPECT_EQ(rule({byte_level(false, false)}), std::nullopt);
  EXPECT_EQ(rule({split(kLlama3Pattern)}), std::nullopt);
  EXPECT_EQ(rule({split(kLlama3Pattern), byte_level(false, true)}), std::nullopt);
  EXPECT_EQ(rule({split(kDigitPattern), byte_level(false, false)}), std::nullopt);
  EXPECT_EQ(rule({split(kDigitPattern), split(kQwen2Pattern), byte_level(false, false)}), std::nullopt);
  EXPECT_EQ(rule({split(kGpt2Pattern, Behavior::kRemoved), byte_level(false, false)}), std::nullopt);
  EXPECT_EQ(rule({split(kGpt2Pattern, Behavior::kIsolated, true), byte_level(false, false)}), std::nullopt);
  EXPECT_EQ(rule({split(R"(\p{N})"), byte_level(false, true)}), std::nullopt);
  EXPECT_EQ(rule({byte_level(false, true), byte_level(false, true)}), std::nullopt);
}

}  // namespace
}  // namespace thimble
