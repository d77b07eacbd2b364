#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/word_rule.h"

namespace thimble {

// A search pattern of a tokenizer: literal text, or a regular expression in the dialect of Hugging Face's
// `tokenizers` (Oniguruma, Ruby syntax, Unicode 16), translated for PCRE2 with UCP and JIT; well-known expressions run
// as hand-written code instead (text/word_rule.h), which finds the same. Immutable; one pattern may run on many threads
// at once.
class Pattern {
 public:
  struct Match {
    size_t begin, end;  // bytes
  };

  static Pattern literal(std::string text);
  // Throws Error that names the pattern where it is wrong or uses what the two dialects do not share.
  static Pattern regex(std::string_view expression);

  // The first match at or after `from` in valid UTF-8. `additions` says that the text holds characters newer than
  // Unicode 14 (has_unicode_additions). Throws Error where the expression needs too many steps on this text.
  bool find(std::string_view text, size_t from, bool additions, Match& match) const;

  // Calls each(begin, end) for every match from left to right. An empty match right behind another is passed over.
  template <class Each>
  void for_each(std::string_view text, bool additions, Each&& each) const {
    size_t from = 0, last_end = std::string_view::npos;
    Match match;
    while (from <= text.size() && find(text, from, additions, match)) {
      if (match.begin == match.end && match.end == last_end) {
        do ++from;
        while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80);
        continue;
      }
      from = last_end = match.end;
      each(match.begin, match.end);
    }
  }

  // The text with `content` in place of every match. Throws Error where that lengthens it by more than `growth` bytes.
  std::string replace_all(std::string_view text, std::string_view content, size_t growth) const;

  // The text of a literal pattern; empty for an expression.
  const std::string& literal_text() const { return literal_; }
  bool is_literal() const { return is_literal_; }
  // Where the expression is a well-known model's.
  std::optional<WordRule> word_rule() const { return word_rule_; }
  // Whether it is kDigitPattern.
  bool finds_digits() const { return finds_digits_; }

 private:
  struct Code;
  bool is_literal_ = false;
  std::string literal_;
  std::string expression_;
  std::optional<WordRule> word_rule_;
  bool finds_digits_ = false;
  // Neither where the expression runs as hand-written code.
  std::shared_ptr<const Code> plain_;     // for text of Unicode 14
  std::shared_ptr<const Code> extended_;  // the same with what later versions added to its classes
};

// Translates an Oniguruma expression to PCRE2's syntax; `additions` adds characters newer than Unicode 14 to the
// classes that hold them. Throws Error for constructs that mean different things in the two.
std::string translate_expression(std::string_view expression, bool additions);

}  // namespace thimble
