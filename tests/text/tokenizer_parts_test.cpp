#include <gmock/gmock.h>

#include <random>

#include "core/error.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"
#include "text/unicode_additions.h"
#include "text/utf8.h"

namespace thimble {
namespace {

std::vector<std::string> matches(const Pattern& pattern, std::string_view text) {
  std::vector<std::string> out;
  pattern.for_each(text, has_unicode_additions(text),
                   [&](size_t begin, size_t end) { out.emplace_back(text.substr(begin, end - begin)); });
  return out;
}

TEST(Utf8, ReplacesMaximalPartsAsPythonDoes) {
  const std::string r = "\xEF\xBF\xBD";
  const std::pair<const char*, std::string> cases[] = {
      {"\xff", r},
      {"a\xc0\xaf", "a" + r + r},
      {"\xe0\x80\xaf", r + r + r},
      {"\xed\xa0\x80", r + r + r},
      {"\xf4\x90\x80\x80", r + r + r + r},
      {"\xf0\x9f\x98"
       "a",
       r + "a"},
      {"\xe2\x82", r},
      {"\xf0\x9f\x98\x80", "😀"},
      {"\xe2\x28\xa1", r + "(" + r},
  };
  for (const auto& [bytes, expected] : cases) EXPECT_EQ(replace_invalid_utf8(bytes), expected);
}

TEST(Utf8, DecodesWhatItEncodes) {
  for (char32_t c = 0; c < 0x110000; c += c < 0x1000 ? 1 : 37) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = to_utf8(c);
    size_t at = 0;
    ASSERT_EQ(decode_utf8(text, at), c);
    ASSERT_EQ(at, text.size());
    ASSERT_EQ(previous_utf8(text, at), 0u);
    ASSERT_TRUE(is_valid_utf8(text));
  }
}

TEST(ByteLevel, MapsEveryByteThereAndBack) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  EXPECT_EQ(byte_level_to_bytes(bytes_to_byte_level(bytes)), bytes);
  EXPECT_EQ(bytes_to_byte_level(" \n"), "ĠĊ");
  EXPECT_EQ(byte_level_to_bytes("中"), std::nullopt);
}

TEST(Pattern, FindsWhatOnigurumaFinds) {
  EXPECT_THAT(matches(Pattern::regex(kGpt2Pattern), "I've  12 cafés!\n"),
              testing::ElementsAre("I", "'ve", " ", " 12", " cafés", "!", "\n"));
  EXPECT_THAT(matches(Pattern::regex(R"(\s+)"), "a\u180Eb\u3000c\u0085"), testing::ElementsAre("\u3000", "\u0085"));
  EXPECT_THAT(matches(Pattern::regex(R"(\p{Han}+)"), "中文、字"), testing::ElementsAre("中文", "字"));
  EXPECT_THAT(matches(Pattern::regex("(?i:'s|'ll)"), "'S 'LL 'ſ"), testing::ElementsAre("'S", "'LL", "'ſ"));
  EXPECT_THAT(matches(Pattern::regex(R"(\d{,2}x)"), "x1x22x333x"), testing::ElementsAre("x", "1x", "22x", "33x"));
  EXPECT_THAT(matches(Pattern::literal("ab"), "abcabab"), testing::ElementsAre("ab", "ab", "ab"));
}

TEST(Pattern, KnowsCharactersNewerThanUnicode14) {
  // U+31350 is a letter of Unicode 15, U+1E4F1 a digit.
  EXPECT_THAT(matches(Pattern::regex(R"(\p{L}+|\p{N})"), "a\U00031350b \U0001E4F1"),
              testing::ElementsAre("a\U00031350b", "\U0001E4F1"));
  EXPECT_THAT(matches(Pattern::regex(R"([^\p{L}\s]+)"), "!\U00031350?"), testing::ElementsAre("!", "?"));
}

TEST(Pattern, RefusesWhatTheDialectsDoNotShare) {
  for (const char* expression :
       {"(", "[a[b]]", "[a&&b]", "[[:alpha:]]", "(?m:a)", "(?<n>a)", R"(\h)", R"(\1)", R"(a{1,2}+)", R"([\W])",
        R"(\p{No Such}))", R"(\p{NoSuchScript})", "a\\", "[]a]", R"(\p{L)"})
    EXPECT_THROW(Pattern::regex(expression), Error) << expression;
}

TEST(Pattern, SaysThatAnExpressionNeedsTooManySteps) {
  const Pattern pattern = Pattern::regex("(a|aa)+$");
  Pattern::Match match;
  EXPECT_THROW(pattern.find(std::string(64, 'a') + "!", 0, false, match), Error);
}

std::vector<std::string> pieces(PreTokenizer::Step step, std::string_view text) {
  PreTokenizer pre;
  pre.add(std::move(step));
  std::deque<std::string> storage;
  std::vector<Piece> found;
  pre.run({text, true}, storage, found);
  std::vector<std::string> out;
  for (const Piece& piece : found) out.emplace_back(piece.text);
  return out;
}

TEST(PreTokenizer, TreatsMatchesAsTheBehaviorSays) {
  using B = PreTokenizer::Behavior;
  const auto split = [](B behavior, bool invert = false) {
    return pieces(PreTokenizer::Split{Pattern::literal("-"), behavior, invert}, "the-final--countdown");
  };
  EXPECT_THAT(split(B::kRemoved), testing::ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(split(B::kIsolated), testing::ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(split(B::kMergedWithPrevious), testing::ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(split(B::kMergedWithNext), testing::ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(split(B::kContiguous), testing::ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(split(B::kRemoved, true), testing::ElementsAre("-", "-", "-"));
}

TEST(PreTokenizer, PutsMetaspacesWhereTheSchemeSays) {
  using P = PreTokenizer::Metaspace::Prepend;
  EXPECT_THAT(pieces(PreTokenizer::Metaspace{"▁", P::kAlways, true}, "Hey  you"),
              testing::ElementsAre("▁Hey", "▁", "▁you"));
  EXPECT_THAT(pieces(PreTokenizer::Metaspace{"▁", P::kNever, false}, "Hey you"), testing::ElementsAre("Hey▁you"));
  EXPECT_THAT(pieces(PreTokenizer::Metaspace{"▁", P::kFirst, false}, " Hey"), testing::ElementsAre("▁Hey"));
}

TEST(Normalizer, AppliesItsStepsInOrder) {
  Normalizer normalizer;
  normalizer.add(Normalizer::Strip{true, true});
  normalizer.add(Normalizer::Unicode{Normalizer::Form::kNfkd});
  normalizer.add(Normalizer::StripAccents{});
  normalizer.add(Normalizer::Lowercase{});
  normalizer.add(Normalizer::Replace{Pattern::regex(R"(\s+)"), "_"});
  normalizer.add(Normalizer::Prepend{">"});
  EXPECT_EQ(normalizer.apply("\u3000ÄPFEL  ﬁx² "), ">apfel_fix2");
  EXPECT_EQ(normalizer.apply("  "), "");
}

TEST(MergeTable, FindsWhatWasAdded) {
  MergeTable table;
  for (int32_t i = 0; i < 5000; ++i) table.add(i, i * 7 + 1, {static_cast<uint32_t>(i), i + 2});
  EXPECT_EQ(table.size(), 5000u);
  for (int32_t i = 0; i < 5000; ++i) ASSERT_EQ(table.find(i, i * 7 + 1).symbol, i + 2);
  EXPECT_EQ(table.find(3, 3).rank, MergeTable::kNone);
  table.add(0, 1, {9, 9});
  EXPECT_EQ(table.find(0, 1).symbol, 9);
  EXPECT_EQ(table.size(), 5000u);
}

// One merge at a time, searching everything: what both fast ways must equal.
std::vector<int32_t> merge_slowly(const MergeTable& merges, std::vector<int32_t> symbols) {
  while (true) {
    size_t best = symbols.size();
    MergeTable::Merge first;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const MergeTable::Merge merge = merges.find(symbols[i], symbols[i + 1]);
      if (merge.rank < first.rank) first = merge, best = i;
    }
    if (best == symbols.size()) return symbols;
    symbols[best] = first.symbol;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(MergeSymbols, MergesLowestRanksFirstAtAnyLength) {
  std::mt19937 random(5);
  MergeTable merges;
  // Symbol n stands for a distinct string: random pairs of what is there already.
  for (int32_t next = 4; next < 300; ++next)
    merges.add(static_cast<int32_t>(random() % next), static_cast<int32_t>(random() % next),
               {static_cast<uint32_t>(next), next});
  for (size_t length = 0; length < 200; ++length) {
    std::vector<int32_t> symbols(length);
    for (int32_t& symbol : symbols) symbol = static_cast<int32_t>(random() % 4);
    std::vector<int32_t> merged = symbols;
    merge_symbols(merges, merged);
    ASSERT_EQ(merged, merge_slowly(merges, symbols)) << length;
  }
}

TEST(Bpe, HandlesUnknownCharactersAsItsOptionsSay) {
  const std::vector<std::string> tokens = {"<unk>", "a", "b", "ab", "<0xC3>", "<0xA9>"};
  const auto encode = [&](Bpe::Options options, std::string_view text) {
    Bpe bpe(tokens, {0, 1, 2, 3, 4, 5}, options);
    bpe.add_merge("a", "b");
    bpe.finish();
    std::vector<int32_t> out;
    bpe.encode(text, false, out);
    return out;
  };
  Bpe::Options options;
  EXPECT_THAT(encode(options, "abzza"), testing::ElementsAre(3, 1));
  options.unk = 0;
  EXPECT_THAT(encode(options, "abzza"), testing::ElementsAre(3, 0, 0, 1));
  options.fuse_unk = true;
  EXPECT_THAT(encode(options, "abzza"), testing::ElementsAre(3, 0, 1));
  options.byte_fallback = true;
  EXPECT_THAT(encode(options, "aéz"), testing::ElementsAre(1, 4, 5, 0));
}

TEST(Bpe, UsesPrefixesAndSuffixesOfSubwords) {
  Bpe::Options options;
  options.continuing_subword_prefix = "##";
  options.end_of_word_suffix = "</w>";
  Bpe bpe({"a", "##b", "##c</w>", "a</w>", "ab", "abc</w>"}, {0, 1, 2, 3, 4, 5}, options);
  bpe.add_merge("a", "##b");
  bpe.add_merge("ab", "##c</w>");
  bpe.finish();
  std::vector<int32_t> out;
  bpe.encode("abc", false, out);
  bpe.encode("a", false, out);
  EXPECT_THAT(out, testing::ElementsAre(5, 3));
}

}  // namespace
}  // namespace thimble
