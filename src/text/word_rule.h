#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace thimble {

// How well-known models cut text into words, written by hand: the words that their regular expressions find, many times
// as fast. Every other expression is PCRE2's (text/pattern.h); a test holds the two against each other.
enum class WordRule : uint8_t {
  kGpt2,
  kGpt2SingleDigits,  // SmolLM2, StarCoder: each digit apart, then GPT-2's rule in what lies between
  kLlama3,            // GPT-4's cl100k as well: numbers of up to three digits, words take one sign in front along
  kQwen2,             // the same with single digits
};

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
// The same two as tiktoken writes them.
inline constexpr std::string_view kCl100kPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|)"
    R"(\s*[\r\n]|\s+(?!\S)|\s+)";
inline constexpr std::string_view kBailingPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
// What tokenizer.json's Digits splits at: Rust's char::is_numeric, which knows three ranges of Unicode 17 beside \p{N}.
inline constexpr std::string_view kDigitPattern = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

// The rule that an expression stands for, known by its exact text.
std::optional<WordRule> find_word_rule(std::string_view expression);

// The words of valid UTF-8 from `at` on: each one's end goes into `ends`, until that is full or the text at its end.
// Words follow one another without gaps. Returns how many there are; `at` is a word's beginning and not the text's end.
size_t split_words(WordRule rule, std::string_view text, size_t at, std::span<size_t> ends);

// The first digit (kDigitPattern) at or behind `at` in valid UTF-8, and its length; false where there is none.
bool find_digit(std::string_view text, size_t at, size_t& begin, size_t& end);

}  // namespace thimble
