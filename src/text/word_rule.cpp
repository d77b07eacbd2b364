#include "text/word_rule.h"

#include <bit>
#include <cstring>

#include "text/character_class.h"
#include "text/utf8.h"

namespace thimble {
namespace {

using namespace character_class;

struct Character {
  uint8_t kind;
  uint8_t size;  // bytes
};

Character look_beyond_ascii(const char* at) {
  size_t size = 0;
  const char32_t c = decode_utf8(std::string_view(at, 4), size);  // reads only the bytes that the first one announces
  return {beyond_ascii(c), static_cast<uint8_t>(size)};
}

inline Character look(const char* at) {
  const uint8_t kind = kOfByte[static_cast<unsigned char>(*at)];
  return kind != kBeyondAscii ? Character{kind, 1} : look_beyond_ascii(at);
}

// The first character at or behind `at` that is of none of the kinds.
template <uint8_t kKinds>
const char* pass(const char* at, const char* end) {
  while (at < end) {
    const uint8_t kind = kOfByte[static_cast<unsigned char>(*at)];
    if (kind & kKinds) {
      ++at;
      continue;
    }
    if (kind != kBeyondAscii) return at;
    const Character c = look_beyond_ascii(at);
    if (!(c.kind & kKinds)) return at;
    at += c.size;
  }
  return at;
}

// How many of eight bytes, from the first, are ASCII letters: no branch, so none to mispredict at each word's end.
inline unsigned leading_letters(uint64_t bytes) {
  constexpr uint64_t kEach = 0x0101010101010101;
  const uint64_t small = (bytes & 0x7F * kEach) | 0x20 * kEach;
  const uint64_t from_a = small + (0x80 - 'a') * kEach, behind_z = small + (0x7F - 'z') * kEach;
  const uint64_t others = ~(from_a & ~behind_z & ~bytes) & 0x80 * kEach;
  return static_cast<unsigned>(std::countr_zero(others)) / 8;
}

const char* pass_letters(const char* at, const char* end) {
  while (end - at >= 8) {
    uint64_t bytes;
    std::memcpy(&bytes, at, 8);
    const unsigned n = leading_letters(bytes);
    at += n;
    if (n == 8) continue;
    if (static_cast<unsigned char>(*at) < 0x80) return at;
    break;
  }
  return pass<kLetter>(at, end);
}

// The end of 's 't 're 've 'm 'll 'd at an apostrophe; `at` where there is none.
const char* contraction_end(const char* at, const char* end) {
  if (end - at < 2) return at;
  const char second = at[1], third = end - at > 2 ? at[2] : '\0';
  if (second == 's' || second == 't' || second == 'm' || second == 'd') return at + 2;
  if ((second == 'r' || second == 'v') && third == 'e') return at + 3;
  return second == 'l' && third == 'l' ? at + 3 : at;
}

// The same in any case. U+017F is a small s, too.
const char* contraction_end_any_case(const char* at, const char* end) {
  if (end - at < 2) return at;
  const auto small = [](char c) { return static_cast<char>(c | 0x20); };
  const char second = small(at[1]), third = end - at > 2 ? small(at[2]) : '\0';
  if (second == 's' || second == 't' || second == 'm' || second == 'd') return at + 2;
  if (end - at > 2 && at[1] == '\xC5' && at[2] == '\xBF') return at + 3;
  if ((second == 'r' || second == 'v') && third == 'e') return at + 3;
  return second == 'l' && third == 'l' ? at + 3 : at;
}

bool is_newline(char c) { return c == '\r' || c == '\n'; }

// White space that is no part of the word behind it: all but its last character, where there is a word behind it.
template <uint8_t kEndsText>
const char* space_end(const char* begin, const char* end) {
  const char *at = begin, *last = begin;
  while (at < end) {
    const Character c = look(at);
    if (c.kind & kEndsText) return at;
    if (!(c.kind & kSpace)) return last == begin ? at : last;
    last = at;
    at += c.size;
  }
  return at;
}

// Digits apart end the text between them, which is what the rule runs on.
template <bool kSingleDigits>
const char* gpt2_word_end(const char* begin, const char* end) {
  constexpr uint8_t kDigits = kSingleDigits ? kNumber | kNewNumber : kNumber;
  constexpr uint8_t kOthers = kSingleDigits ? kOther : kOther | kNewNumber;
  constexpr uint8_t kEndsText = kSingleDigits ? kDigits : 0;
  const char* at = begin + (*begin == ' ');
  if (at == end) return end;
  const Character c = look(at);
  if (c.kind & kLetter) return pass_letters(at + c.size, end);
  if (c.kind & kOthers) {
    if (*begin == '\'') {
      const char* word_end = contraction_end(begin, end);
      if (word_end != begin) return word_end;
    }
    return pass<kOthers>(at + c.size, end);
  }
  if (c.kind & kDigits) {
    if (!kSingleDigits) return pass<kDigits>(at + c.size, end);
    return at == begin ? at + c.size : at;
  }
  return space_end<kEndsText>(begin, end);
}

template <int kMostDigits>
const char* llama3_word_end(const char* begin, const char* end) {
  constexpr uint8_t kOthers = kOther | kNewNumber;
  const Character c = look(begin);
  const char* next = begin + c.size;
  if (c.kind & kLetter) return pass_letters(next, end);
  if (c.kind & kNumber) {
    for (int digits = 1; digits < kMostDigits && next < end; ++digits) {
      const Character digit = look(next);
      if (!(digit.kind & kNumber)) break;
      next += digit.size;
    }
    return next;
  }
  if (*begin == '\'') {
    const char* word_end = contraction_end_any_case(begin, end);
    if (word_end != begin) return word_end;
  }
  bool signs = c.kind & kOthers;
  if (next < end && !is_newline(*begin)) {
    const Character second = look(next);
    if (second.kind & kLetter) return pass_letters(next + second.size, end);
    if (*begin == ' ' && second.kind & kOthers) signs = true;
  }
  if (signs) {
    const char* at = pass<kOthers>(next, end);
    while (at < end && is_newline(*at)) ++at;
    return at;
  }
  // White space goes up to its last newline, where it has one.
  const char *at = begin, *last = begin, *behind_newline = nullptr;
  while (at < end) {
    const Character space = look(at);
    if (!(space.kind & kSpace)) break;
    last = at;
    at += space.size;
    if (is_newline(*last)) behind_newline = at;
  }
  if (behind_newline != nullptr) return behind_newline;
  return at == end || last == begin ? at : last;
}

template <const char* (*kWordEnd)(const char*, const char*)>
size_t split(std::string_view text, size_t from, std::span<size_t> ends) {
  const char *at = text.data() + from, *end = text.data() + text.size();
  size_t n = 0;
  while (at < end && n < ends.size()) {
    at = kWordEnd(at, end);
    ends[n++] = static_cast<size_t>(at - text.data());
  }
  return n;
}

}  // namespace

std::optional<WordRule> find_word_rule(std::string_view expression) {
  if (expression == kGpt2Pattern) return WordRule::kGpt2;
  if (expression == kLlama3Pattern || expression == kCl100kPattern) return WordRule::kLlama3;
  if (expression == kQwen2Pattern || expression == kBailingPattern) return WordRule::kQwen2;
  return std::nullopt;
}

size_t split_words(WordRule rule, std::string_view text, size_t at, std::span<size_t> ends) {
  switch (rule) {
    case WordRule::kGpt2:
      return split<gpt2_word_end<false>>(text, at, ends);
    case WordRule::kGpt2SingleDigits:
      return split<gpt2_word_end<true>>(text, at, ends);
    case WordRule::kLlama3:
      return split<llama3_word_end<3>>(text, at, ends);
    case WordRule::kQwen2:
      break;
  }
  return split<llama3_word_end<1>>(text, at, ends);
}

bool find_digit(std::string_view text, size_t at, size_t& begin, size_t& end) {
  const char* found = pass < kLetter | kSpace | kOther > (text.data() + at, text.data() + text.size());
  if (found == text.data() + text.size()) return false;
  begin = static_cast<size_t>(found - text.data());
  end = begin + look(found).size;
  return true;
}

}  // namespace thimble
