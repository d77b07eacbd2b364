#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "text/pattern.h"
#include "text/unicode_additions.h"

namespace thimble {
namespace {

// Oniguruma's \w: also the superscripts and fractions of Latin-1.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

// Names that PCRE2 knows as binary properties; other long names are scripts.
constexpr std::array<std::string_view, 10> kBinary = {
    "Alphabetic",  "Emoji",     "Emoji_Presentation", "Extended_Pictographic",
    "Ideographic", "Lowercase", "Uppercase",          "White_Space",
    "Any",         "ASCII"};

class Translator {
 public:
  Translator(std::string_view expression, bool additions) : in_(expression), additions_(additions) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_character(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '{') {
        repeat();
      } else if (in_.substr(at_, 2) == "(?") {
        group();
      } else {
        copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(fmt::format("the tokenizer's pattern '{}' uses {} at byte {}, which is not supported", in_, what, at_));
  }

  void copy(size_t n) {
    out_ += in_.substr(at_, n);
    at_ += n;
  }

  void open_class() {
    in_class_ = true;
    copy(1);
    if (at_ < in_.size() && in_[at_] == '^') copy(1);
    if (at_ < in_.size() && in_[at_] == ']') refuse("']' at the start of a class");
  }

  void class_character(char c) {
    if (c == ']') {
      in_class_ = false;
      return copy(1);
    }
    if (in_.substr(at_, 2) == "&&") refuse("an intersection of classes (&&)");
    if (c == '[') refuse(in_.substr(at_, 2) == "[:" ? "a POSIX class" : "a class inside a class");
    copy(1);
  }

  // Ruby's {,n} means {0,n}, and its {n,m}+ is no possessive repeat.
  void repeat() {
    const size_t end = in_.find('}', at_);
    const std::string_view body = end == std::string_view::npos ? "" : in_.substr(at_ + 1, end - at_ - 1);
    if (body.empty() || body.find_first_not_of("0123456789,") != std::string_view::npos) {
      out_ += "\\{";
      ++at_;
      return;
    }
    if (body == ",") refuse("'{,}'");
    if (end + 1 < in_.size() && in_[end + 1] == '+') refuse("'+' behind a counted repeat");
    out_ += body[0] == ',' ? fmt::format("{{0{}}}", body) : fmt::format("{{{}}}", body);
    at_ = end + 1;
  }

  void group() {
    const size_t colon = in_.find_first_not_of("imx-", at_ + 2);
    if (colon != std::string_view::npos && (in_[colon] == ':' || in_[colon] == ')') && colon > at_ + 2 &&
        in_.substr(at_ + 2, colon - at_ - 2) != "i")
      refuse("an option other than (?i)");
    constexpr std::string_view kKnown[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i"};
    for (const std::string_view known : kKnown)
      if (in_.substr(at_, known.size()) == known) return copy(known.size());
    refuse("this kind of group");
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a backslash at the end");
    const char c = in_[at_ + 1];
    switch (c) {
      case 'p':
      case 'P':
        return property(c == 'P');
      case 's':
      case 'S':
        // PCRE2's own \s also holds U+180E, which is no white space since Unicode 6.3.
        at_ += 2;
        out_ += c == 's' ? R"(\p{White_Space})" : R"(\P{White_Space})";
        return;
      case 'd':
      case 'D':
        at_ += 2;
        return category("Nd", c == 'D');
      case 'w':
      case 'W':
        at_ += 2;
        if (in_class_ && c == 'W') refuse("\\W inside a class");
        if (in_class_) {
          out_ += kWord;
          return add("L"), add("M"), add("Nd"), add("Pc");
        }
        out_ += word_class(c == 'W');
        return;
      case 'b':
        if (in_class_) refuse("\\b inside a class");
        at_ += 2;
        out_ += fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word_class(false));
        return;
      case 'v':
        at_ += 2;
        out_ += R"(\x0b)";  // PCRE2's \v is any vertical space
        return;
      case 'x':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'A':
      case 'z':
      case 'Z':
        return copy(2);
      case 'u':
        return code_unit();
      default:
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
          refuse(fmt::format("'\\{}'", c));
        return copy(2);
    }
  }

  // \uHHHH
  void code_unit() {
    const std::string_view digits = in_.substr(std::min(at_ + 2, in_.size()), 4);
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
      refuse("\\u without four hexadecimal digits");
    out_ += fmt::format("\\x{{{}}}", digits);
    at_ += 6;
  }

  std::string word_class(bool negated) const {
    std::string text = fmt::format("[{}{}", negated ? "^" : "", kWord);
    if (additions_)
      for (const char* name : {"L", "M", "Nd", "Pc"}) text += ranges(name);
    return text + "]";
  }

  // \p{L}, \p{^L}, \pL, \p{Han}
  void property(bool negated) {
    at_ += 2;
    std::string_view name;
    if (at_ < in_.size() && in_[at_] == '{') {
      const size_t end = in_.find('}', at_);
      if (end == std::string_view::npos) refuse("a property without '}'");
      name = in_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
    } else {
      refuse("a property without '{'");
    }
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    if (name.empty() ||
        name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_") != std::string_view::npos)
      refuse(fmt::format("the property '{}'", name));
    if (name.size() <= 2) return category(name, negated);
    if (std::find(kBinary.begin(), kBinary.end(), name) != kBinary.end()) {
      out_ += fmt::format("\\{}{{{}}}", negated ? 'P' : 'p', name);
      return;
    }
    // By itself PCRE2's \p{Han} would also hold characters that other scripts share with Han.
    const std::string script = fmt::format("sc:{}", name);
    const std::string newer = name == "Han" ? R"(\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})" : "";
    emit(script, negated, newer);
  }

  void category(std::string_view name, bool negated) { emit(name, negated, ranges(name)); }

  void emit(std::string_view name, bool negated, const std::string& newer) {
    const char p = negated ? 'P' : 'p';
    if (!additions_ || newer.empty()) {
      out_ += fmt::format("\\{}{{{}}}", p, name);
    } else if (!in_class_) {
      out_ += fmt::format("[{}\\p{{{}}}{}]", negated ? "^" : "", name, newer);
    } else if (!negated) {
      out_ += fmt::format("\\p{{{}}}{}", name, newer);
    } else {
      refuse("a negated property inside a class, with characters newer than Unicode 14,");
    }
  }

  void add(std::string_view name) {
    if (additions_) out_ += ranges(name);
  }

  static std::string ranges(std::string_view name) {
    std::string text;
    for (const UnicodeAddition& a : unicode_additions())
      if (std::string_view(a.category).substr(0, name.size()) == name)
        text += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<uint32_t>(a.first), static_cast<uint32_t>(a.last));
    return text;
  }

  std::string_view in_;
  bool additions_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

std::string translate_expression(std::string_view expression, bool additions) {
  return Translator(expression, additions).run();
}

}  // namespace thimble
