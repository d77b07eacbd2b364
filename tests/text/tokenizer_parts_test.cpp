#include <gmock/gmock.h>

#include <random>

#include "core/error.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"
#include "text/token_table.h"
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

TEST(Normalizer, JoinsMarksToTheAsciiBeforeThem) {
  const auto normalized = [](Normalizer::Form form, std::string_view text) {
    Normalizer normalizer;
    normalizer.add(Normalizer::Unicode{form});
    return normalizer.apply(text);
  };
  using Form = Normalizer::Form;
  EXPECT_EQ(normalized(Form::kNfc, "e\u0301a cafe\u0301 <\u0338e\u0327\u0301"), "\u00e9a caf\u00e9 \u226e\u0229\u0301");
  EXPECT_EQ(normalized(Form::kNfc, "\u0301"), "\u0301");
  EXPECT_EQ(normalized(Form::kNfd, "\u00e9 long ASCII between \u00e9"), "e\u0301 long ASCII between e\u0301");
  EXPECT_EQ(normalized(Form::kNfkc, "\ufb01x\u00b2"), "fix2");
  EXPECT_EQ(normalized(Form::kNfc, "nothing but ASCII"), "nothing but ASCII");
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

TEST(Bpe, DoesNotTakeATokenForItsTextWhereMergesGiveOthers) {
  // "b" + "c" merge first, so that "abc" never comes about.
  const std::vector<std::string> tokens = {"a", "b", "c", "bc", "ab", "abc"};
  for (const bool ignore_merges : {false, true}) {
    Bpe::Options options;
    options.ignore_merges = ignore_merges;
    Bpe bpe(tokens, {0, 1, 2, 3, 4, 5}, options);
    bpe.add_merge("b", "c");
    bpe.add_merge("a", "b");
    bpe.add_merge("ab", "c");
    bpe.finish();
    for (const char* word : {"abc", "abc", "ab", "ab", "bc", "bc"}) {
      std::vector<int32_t> out;
      bpe.encode(word, false, out);
      const std::string text = word;
      if (text == "abc" && !ignore_merges) {
        EXPECT_THAT(out, testing::ElementsAre(0, 3));
      } else {
        EXPECT_THAT(out, testing::ElementsAre(text == "abc" ? 5 : text == "ab" ? 4 : 3)) << text;
      }
    }
  }
}

// A vocabulary of all bytes, and a few words.
Bpe byte_level_words() {
  std::vector<std::string> tokens;
  std::vector<int32_t> candidates;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(byte_level_character(static_cast<unsigned char>(byte)));
  for (const char* word : {"th", "the", "Ġthe", "==", "====", "========"}) tokens.emplace_back(word);
  for (size_t id = 0; id < tokens.size(); ++id) candidates.push_back(static_cast<int32_t>(id));
  Bpe bpe(tokens, candidates, {});
  bpe.add_merge("t", "h");
  bpe.add_merge("th", "e");
  bpe.add_merge("Ġ", "the");
  bpe.add_merge("=", "=");
  bpe.add_merge("==", "==");
  bpe.add_merge("====", "====");
  bpe.finish();
  return bpe;
}

TEST(Bpe, EncodesTheWordsOfATextAsItEncodesEachAlone) {
  const Bpe bpe = byte_level_words();
  std::mt19937 random(6);
  for (int round = 0; round < 3000; ++round) {
    // Few different words of all sizes, up to the text's last byte, so that many are met again.
    std::string text;
    std::vector<size_t> ends;
    const size_t words = 1 + random() % 9;
    for (size_t i = 0; i < words; ++i) {
      const size_t kind = random() % 6;
      if (kind == 0) text += " the";
      if (kind == 1) text += std::string(1 + random() % 80, '=');
      if (kind == 2) text += std::string(1 + random() % 26, static_cast<char>('a' + random() % 3));
      if (kind == 3) text += std::string(1 + random() % 3, '\0');
      if (kind == 4) text += static_cast<char>(random());
      if (kind == 5) text += "the" + std::string(random() % 30, 'x');
      ends.push_back(text.size());
    }
    std::vector<int32_t> expected = {-5}, all = {-5};
    size_t begin = 0;
    for (const size_t end : ends) {
      const std::string word = text.substr(begin, end - begin);
      bpe.encode(word, true, expected);
      begin = end;
    }
    bpe.encode_words(text, 0, ends, all);
    ASSERT_EQ(all, expected);
    std::string decoded;
    for (size_t i = 1; i < all.size(); ++i)
      decoded += all[i] < 256 ? std::string(1, static_cast<char>(all[i]))
                              : std::vector<std::string>{"th", "the", " the", "==", "====", "========"}[all[i] - 256];
    ASSERT_EQ(decoded, text);
  }
}

TEST(TokenTable, FindsWhatWasAddedFirst) {
  TokenTable table;
  EXPECT_EQ(table.find("a"), -1);
  table.reserve(10, 10);
  std::mt19937 random(2);
  std::vector<std::string> texts = {""};
  for (int32_t i = 0; i < 3000; ++i) texts.push_back(std::string(random() % 3, 'x') + std::to_string(i));
  for (size_t i = 0; i < texts.size(); ++i) ASSERT_TRUE(table.add(texts[i], static_cast<int32_t>(i * 3)));
  EXPECT_FALSE(table.add(texts[7], 5));
  EXPECT_EQ(table.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSERT_EQ(table.find(texts[i]), static_cast<int32_t>(i * 3));
  }
  size_t next = 0;
  table.for_each([&](std::string_view text, int32_t id) {
    ASSERT_EQ(text, texts[next]);
    ASSERT_EQ(id, static_cast<int32_t>(next++ * 3));
  });
  EXPECT_EQ(next, texts.size());
  // A hint changes nothing but where is looked first.
  for (size_t hint = 0, i = 0; i < texts.size(); i += 1 + random() % 3)
    ASSERT_EQ(table.find(texts[i], hint), static_cast<int32_t>(i * 3));
  EXPECT_EQ(table.find("y"), -1);
}

// The first-found, longest token at each place, looked for in the plainest way.
std::vector<std::string> parts_slowly(const std::vector<AddedToken>& tokens, std::string_view text, bool special) {
  std::vector<std::string> parts(1);
  for (size_t at = 0; at < text.size();) {
    const AddedToken* best = nullptr;
    for (const AddedToken& token : tokens)
      if (text.substr(at).starts_with(token.content) &&
          (best == nullptr || token.content.size() > best->content.size()))
        best = &token;
    const size_t length = best == nullptr ? 1 : best->content.size();
    if (best != nullptr && (special || !best->special)) {
      parts.push_back("#" + std::to_string(best->id));
      parts.emplace_back();
    } else {
      parts.back() += text.substr(at, length);
    }
    at += length;
  }
  std::erase(parts, "");
  return parts;
}

TEST(AddedTokenFinder, FindsTheLeftmostAndLongest) {
  std::mt19937 random(4);
  const std::vector<std::vector<std::string>> vocabularies = {
      {"<|a|>", "<|ab|>", "<b>"}, {"<", "<a", "<ab>"}, {"<a>", "[b]", "|", "||a"}, {"a"}, {}};
  for (const std::vector<std::string>& contents : vocabularies) {
    for (const bool all_special : {false, true}) {
      AddedTokenFinder finder;
      std::vector<AddedToken> tokens;
      for (const std::string& content : contents) {
        AddedToken token;
        token.id = static_cast<int32_t>(tokens.size());
        token.content = content;
        token.special = all_special || tokens.size() % 2 == 0;
        tokens.push_back(token);
        finder.add(token, content);
      }
      for (int round = 0; round < 2000; ++round) {
        std::string text;
        for (size_t n = random() % 24; n > 0; --n) text += "<|ab>[]é"[random() % 9];
        if (!is_valid_utf8(text)) text = replace_invalid_utf8(text);
        for (const bool special : {false, true}) {
          std::vector<AddedTokenFinder::Part> found;
          finder.split(text, special, found);
          std::vector<std::string> parts;
          for (const AddedTokenFinder::Part& part : found)
            parts.push_back(part.id >= 0 ? "#" + std::to_string(part.id)
                                         : text.substr(part.begin, part.end - part.begin));
          ASSERT_EQ(parts, parts_slowly(tokens, text, special)) << text;
        }
      }
    }
  }
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
