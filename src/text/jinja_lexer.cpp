#include "text/jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "core/error.h"
#include "text/jinja_unicode.h"

namespace thimble::jinja {

void fail_syntax(int line, const std::string& message) {
  throw Error(fmt::format("the template does not parse: {} (template line {})", message, line));
}

namespace {
// \r\n and \r become \n, and one newline at the end goes.
std::string normalize_newlines(std::string_view text, bool drop_last) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      out += '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    } else {
      out += text[i];
    }
  }
  if (drop_last && !out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool digit_of_base(char c, int base) {
  if (base == 16) return std::isxdigit(static_cast<unsigned char>(c)) != 0;
  return c >= '0' && c < '0' + base;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_root();
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  using Kind = Token::Kind;

  void add(Kind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }
  char peek(size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0'; }
  bool looking_at(std::string_view text, size_t at) const { return source_.compare(at, text.size(), text) == 0; }
  void count_lines(size_t begin, size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(begin),
                                         source_.begin() + static_cast<ptrdiff_t>(end), '\n'));
  }
  void move_to(size_t end) {
    count_lines(at_, end);
    at_ = end;
  }
  size_t skip_space(size_t at) const {
    while (at < source_.size()) {
      size_t next = at;
      if (!is_space(decode_at(source_, next))) break;
      at = next;
    }
    return at;
  }
  // Behind `word` with space around it, or npos.
  size_t match_word(std::string_view word, size_t at) const {
    at = skip_space(at);
    if (!looking_at(word, at)) return std::string::npos;
    return skip_space(at + word.size());
  }
  // Where {% raw %} ends if `at` stands at one, or npos.
  size_t match_raw_begin(size_t at) const {
    at += 2;
    if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) ++at;
    at = match_word("raw", at);
    if (at == std::string::npos) return at;
    if (looking_at("-%}", at)) return skip_space(at + 3);
    if (looking_at("%}", at)) return at + 2;
    return std::string::npos;
  }
  // Behind the end tag at `at` ("%}" or "#}"), or npos: `+` keeps the newline, `-` takes all space, else one newline.
  size_t match_end(std::string_view end, size_t at) const {
    if (looking_at(end, at)) {
      at += 2;
      return at < source_.size() && source_[at] == '\n' ? at + 1 : at;
    }
    if (at < source_.size() && looking_at(end, at + 1)) {
      if (source_[at] == '-') return skip_space(at + 3);
      if (source_[at] == '+') return at + 3;
    }
    return std::string::npos;
  }

  // The text before a tag, with the whitespace control that the tag asks for. Returns newlines that were stripped.
  void add_data(size_t end, char sign, bool may_strip_line) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      while (!text.empty()) {
        size_t last = text.size() - 1;
        while (last > 0 && (text[last] & 0xC0) == 0x80) --last;
        size_t at = last;
        if (!is_space(decode_at(text, at))) break;
        text = text.substr(0, last);
      }
    } else if (sign != '+' && may_strip_line) {
      const size_t newline = text.rfind('\n');
      const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
      if (begin > 0 || line_starting_) {
        const size_t stop = skip_space(at_ + begin);
        if (stop >= end) text = text.substr(0, begin);
      }
    }
    if (!text.empty()) add(Kind::kData, std::string(text));
    move_to(end);
  }

  void lex_root() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos) {
        add(Kind::kData, source_.substr(at_));
        move_to(source_.size());
        return;
      }
      const char c = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (c == '{' || c == '%' || c == '#') break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    const char sign =
        tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+') ? source_[tag + 2] : 0;
    const size_t raw = kind == '%' ? match_raw_begin(tag) : std::string::npos;
    add_data(tag, sign, kind != '{');
    if (raw != std::string::npos) {
      line_starting_ = source_[raw - 1] == '\n';
      move_to(raw);
      return lex_raw();
    }
    line_starting_ = false;
    const size_t inside = tag + 2 + (sign != 0 ? 1 : 0);
    if (kind == '#') return lex_comment(inside);
    add(kind == '{' ? Kind::kVariableBegin : Kind::kBlockBegin, "");
    move_to(inside);
    lex_code(kind == '{');
  }

  void lex_raw() {
    for (size_t tag = at_; (tag = source_.find("{%", tag)) != std::string::npos; ++tag) {
      size_t at = tag + 2;
      const char sign = at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
      if (sign != 0) ++at;
      at = match_word("endraw", at);
      if (at == std::string::npos) continue;
      const size_t end = match_end("%}", at);
      if (end == std::string::npos) continue;
      add_data(tag, sign, true);
      line_starting_ = source_[end - 1] == '\n';
      return move_to(end);
    }
    if (at_ < source_.size()) fail_syntax(line_, "Missing end of raw directive");
  }

  void lex_comment(size_t inside) {
    move_to(inside);
    for (size_t i = at_; i < source_.size(); ++i) {
      const char c = source_[i];
      if (c != '#' && c != '-' && c != '+') continue;
      const size_t end = match_end("#}", i);
      if (end == std::string::npos) continue;
      line_starting_ = source_[end - 1] == '\n';
      return move_to(end);
    }
    if (at_ < source_.size()) fail_syntax(line_, "Missing end of comment tag");
  }

  void lex_code(bool variable) {
    std::string brackets;  // the closing ones that are due
    while (at_ < source_.size()) {
      if (brackets.empty()) {
        size_t end = std::string::npos;
        if (!variable) {
          end = match_end("%}", at_);
        } else if (looking_at("-}}", at_)) {
          end = skip_space(at_ + 3);
        } else if (looking_at("}}", at_)) {
          end = at_ + 2;
        }
        if (end != std::string::npos) {
          add(variable ? Kind::kVariableEnd : Kind::kBlockEnd, "");
          line_starting_ = source_[end - 1] == '\n';
          return move_to(end);
        }
      }
      if (const size_t after = skip_space(at_); after != at_) {
        move_to(after);
        continue;
      }
      lex_token(brackets);
    }
  }

  void lex_token(std::string& brackets) {
    const char c = peek();
    if (c >= '0' && c <= '9') return lex_number();
    size_t end = at_;
    if (is_identifier_part(decode_at(source_, end))) return lex_name();
    if (c == '"' || c == '\'') return lex_string(c);
    static constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const auto op : kOperators) {
      if (!looking_at(op, at_)) continue;
      if (op == "{") brackets += '}';
      if (op == "(") brackets += ')';
      if (op == "[") brackets += ']';
      if (op == "}" || op == ")" || op == "]") {
        if (brackets.empty()) fail_syntax(line_, fmt::format("unexpected '{}'", op));
        if (brackets.back() != op[0])
          fail_syntax(line_, fmt::format("unexpected '{}', expected '{}'", op, brackets.back()));
        brackets.pop_back();
      }
      add(Kind::kOperator, std::string(op));
      at_ += op.size();
      return;
    }
    fail_syntax(line_, fmt::format("unexpected char '{}' at byte {}", source_.substr(at_, end - at_), at_));
  }

  // Digits with single underscores between them; returns where they end.
  size_t digits(size_t at, int base = 10) const {
    if (at >= source_.size() || !digit_of_base(source_[at], base)) return at;
    while (at < source_.size()) {
      if (digit_of_base(source_[at], base)) {
        ++at;
      } else if (source_[at] == '_' && at + 1 < source_.size() && digit_of_base(source_[at + 1], base)) {
        at += 2;
      } else {
        break;
      }
    }
    return at;
  }

  void add_number(Kind kind, size_t end) {
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    add(kind, std::move(text));
    at_ = end;
  }

  void lex_number() {
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    size_t end = digits(at_);
    if (!after_dot) {
      size_t real = end;
      if (real < source_.size() && source_[real] == '.' && digits(real + 1) > real + 1) real = digits(real + 1);
      if (real < source_.size() && (source_[real] | 32) == 'e') {
        size_t exponent = real + 1;
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
        if (digits(exponent) > exponent) real = digits(exponent);
      }
      if (real > end) return add_number(Kind::kFloat, real);
    }
    if (peek() == '0') {
      const char mark = static_cast<char>(peek(1) | 32);
      const int base = mark == 'b' ? 2 : mark == 'o' ? 8 : mark == 'x' ? 16 : 0;
      if (base != 0) {
        const size_t first = at_ + 2 + (peek(2) == '_' ? 1 : 0);
        if (digits(first, base) > first) return add_number(Kind::kInteger, digits(first, base));
      }
      end = at_ + 1;  // zeros only: 012 is 0, then 12
      while (end < source_.size() && (source_[end] == '0' || (source_[end] == '_' && looking_at("_0", end)))) ++end;
    }
    add_number(Kind::kInteger, end);
  }

  void lex_name() {
    size_t end = at_;
    while (end < source_.size()) {
      size_t next = end;
      if (!is_identifier_part(decode_at(source_, next))) break;
      end = next;
    }
    size_t first = at_;
    if (!is_identifier_start(decode_at(source_, first))) fail_syntax(line_, "Invalid character in identifier");
    add(Kind::kName, source_.substr(at_, end - at_));
    at_ = end;
  }

  void lex_string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_syntax(line_, fmt::format("unexpected char '{}' at byte {}", quote, at_));
    add(Kind::kString, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    move_to(end + 1);
  }

  char32_t hex_escape(std::string_view text, size_t& at, int count) {
    char32_t code = 0;
    for (int i = 0; i < count; ++i) {
      if (at >= text.size() || !std::isxdigit(static_cast<unsigned char>(text[at]))) {
        fail_syntax(line_, "a truncated \\x, \\u or \\U escape in a string");
      }
      const char c = text[at++];
      code = code * 16 + static_cast<char32_t>(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    if (code > 0x10FFFF) fail_syntax(line_, "illegal Unicode character in a string's escape");
    if (code >= 0xD800 && code < 0xE000) fail_syntax(line_, "a lone surrogate in a string's escape");
    return code;
  }

  // Python's unicode-escape. Unknown escapes stay as they are.
  std::string unescape(std::string_view text) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      if (text[at] != '\\') {
        out += text[at++];
        continue;
      }
      ++at;
      const char c = text[at++];
      static constexpr std::string_view kPlain = "\\'\"abfnrtv", kMeaning = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t k = kPlain.find(c); k != std::string_view::npos) {
        out += kMeaning[k];
      } else if (c == '\n') {
        continue;
      } else if (c >= '0' && c <= '7') {
        char32_t code = static_cast<char32_t>(c - '0');
        for (int i = 0; i < 2 && at < text.size() && text[at] >= '0' && text[at] <= '7'; ++i) {
          code = code * 8 + static_cast<char32_t>(text[at++] - '0');
        }
        append_utf8(out, code);
      } else if (c == 'x' || c == 'u' || c == 'U') {
        append_utf8(out, hex_escape(text, at, c == 'x' ? 2 : c == 'u' ? 4 : 8));
      } else if (c == 'N') {
        fail_syntax(line_, "\\N escapes are not supported; write the character itself");
      } else if (static_cast<unsigned char>(c) < 0x80) {
        out += '\\';
        out += c;
      } else {  // Python escapes what is not ASCII before it unescapes, so that the backslash meets a backslash
        --at;
        const auto code = static_cast<uint32_t>(decode_at(text, at));
        out += code < 0x100     ? fmt::format("\\x{:02x}", code)
               : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                : fmt::format("\\U{:08x}", code);
      }
    }
    return out;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};
}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (const size_t at = find_invalid_utf8(source); at != std::string_view::npos) {
    throw Error(fmt::format("the template is not valid UTF-8 at byte {}", at));
  }
  return Lexer(normalize_newlines(source, true)).run();
}

}  // namespace thimble::jinja
