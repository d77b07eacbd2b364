#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

// Parts of Python's str methods that methods and filters share.
namespace thimble::jinja {

namespace {
// Where the last code point of text[0, end) begins.
size_t last_code_point(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (text[end] & 0xC0) == 0x80);
  return end;
}

}  // namespace

size_t find_from(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::vector<std::string_view> split_on_space(std::string_view text, Int limit, bool reverse) {
  std::vector<std::string_view> parts;
  const auto space_before = [&](size_t end) {  // begins where the code point before `end` is a space, else npos
    const size_t begin = last_code_point(text, end);
    size_t at = begin;
    return is_space(decode_at(text, at)) ? begin : std::string_view::npos;
  };
  if (!reverse) {
    size_t at = 0;
    while (true) {
      for (size_t next = at; at < text.size() && is_space(decode_at(text, next)); at = next) {
      }
      if (at >= text.size()) break;
      if (limit >= 0 && static_cast<Int>(parts.size()) >= limit) {
        parts.push_back(text.substr(at));
        break;
      }
      const size_t begin = at;
      for (size_t next = at; at < text.size() && !is_space(decode_at(text, next)); at = next) {
      }
      parts.push_back(text.substr(begin, at - begin));
    }
    return parts;
  }
  size_t end = text.size();
  while (true) {
    for (size_t b; end > 0 && (b = space_before(end)) != std::string_view::npos;) end = b;
    if (end == 0) break;
    if (limit >= 0 && static_cast<Int>(parts.size()) >= limit) {
      parts.push_back(text.substr(0, end));
      break;
    }
    size_t begin = end;
    while (begin > 0 && space_before(begin) == std::string_view::npos) begin = last_code_point(text, begin);
    parts.push_back(text.substr(begin, end - begin));
    end = begin;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value strip(Runtime& runtime, const Text& text, const Value& chars, bool left, bool right) {
  std::u32string set;
  const bool given = !chars.is_missing() && !chars.is_none();
  if (given) {
    if (chars.text() == nullptr) {
      if (chars.is_undefined()) fail_undefined(chars);
      throw Failure("strip arg must be None or str");
    }
    runtime.charge(chars.text()->utf8.size() * 4);
    for (size_t at = 0; at < chars.text()->utf8.size();) set += decode_at(chars.text()->utf8, at);
  }
  std::sort(set.begin(), set.end());
  const auto goes = [&](char32_t c) { return given ? std::binary_search(set.begin(), set.end(), c) : is_space(c); };
  std::string_view rest = text.utf8;
  while (left && !rest.empty()) {
    size_t at = 0;
    if (!goes(decode_at(rest, at))) break;
    rest.remove_prefix(at);
  }
  while (right && !rest.empty()) {
    const size_t begin = last_code_point(rest, rest.size());
    size_t at = begin;
    if (!goes(decode_at(rest, at))) break;
    rest = rest.substr(0, begin);
  }
  return make_text(runtime, std::string(rest), text.markup);
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t c = decode_at(text, at);
    if (!is_line_break(c)) continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string replace_all(Runtime& runtime, const Text& text, const std::string& from, const std::string& to, Int count) {
  const std::string& source = text.utf8;
  std::string out;
  runtime.charge(source.size() / 4);
  const auto grow = [&](size_t size) {
    if (out.size() + size > runtime.options.max_output) throw Failure("the template makes a text that is too long");
    runtime.charge(size);
  };
  Int done = 0;
  size_t at = 0;
  while (at <= source.size() && (count < 0 || done < count)) {
    if (from.empty()) {  // between all code points
      grow(to.size() + 4);
      out += to;
      if (at == source.size()) return out;
      const size_t begin = at;
      decode_at(source, at);
      out.append(source, begin, at - begin);
    } else {
      const size_t found = find_from(source, from, at);
      if (found == std::string::npos) break;
      grow(found - at + to.size());
      out.append(source, at, found - at);
      out += to;
      at = found + from.size();
    }
    ++done;
  }
  grow(source.size() - std::min(at, source.size()));
  if (at < source.size()) out.append(source, at);
  return out;
}

// str.center: when the padding is odd, the extra one goes left where the width is odd too (CPython's rule).
Value center_text(Runtime& runtime, const Text& text, Int width, const std::string& fill) {
  if (width <= static_cast<Int>(text.length)) return make_text(runtime, text.utf8, text.markup);
  if (width > static_cast<Int>(runtime.options.max_output)) throw Failure("the template makes a text that is too long");
  const auto total = static_cast<size_t>(width), missing = total - text.length;
  const size_t left = missing / 2 + (missing & total & 1);
  runtime.charge_text(missing * fill.size() + text.utf8.size());
  std::string out;
  for (size_t i = 0; i < left; ++i) out += fill;
  out += text.utf8;
  for (size_t i = left; i < missing; ++i) out += fill;
  return make_text(runtime, std::move(out), text.markup);
}

namespace {
// Decimal digits and spaces of all scripts as ASCII, as Python reads numbers.
std::string plain_number(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode_at(text, at);
    if (is_space(c)) {
      out += ' ';
    } else if (c >= 0x80 && is_decimal(c)) {
      char32_t zero = c;  // digits stand in runs of ten
      while (is_decimal(zero - 1)) --zero;
      out += static_cast<char>('0' + (c - zero) % 10);
    } else {
      append_utf8(out, c);
    }
  }
  const size_t begin = std::min(out.find_first_not_of(' '), out.size());
  return out.substr(begin, out.find_last_not_of(' ') + 1 - begin);
}
}  // namespace

// int(text, base): spaces around, a sign, a prefix that fits the base, single underscores.
Value parse_int(const Text& text, Int base, bool& ok) {
  ok = false;
  const std::string plain = plain_number(text.utf8);
  std::string_view s = plain;
  bool negative = false;
  if (!s.empty() && (s[0] == '+' || s[0] == '-')) {
    negative = s[0] == '-';
    s.remove_prefix(1);
  }
  if (base != 0 && (base < 2 || base > 36)) throw Failure("int() base must be >= 2 and <= 36, or 0");
  const char mark = s.size() > 1 && s[0] == '0' ? static_cast<char>(s[1] | 32) : '\0';
  const int prefixed = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  const bool automatic = base == 0;
  bool after_prefix = false;
  if (prefixed != 0 && (base == 0 || base == prefixed)) {
    base = prefixed;
    s.remove_prefix(2);
    after_prefix = true;
  } else if (base == 0) {
    base = 10;
  }
  Int value = 0;
  bool digit_before = after_prefix;
  bool any = false;
  for (const char c : s) {
    if (c == '_') {
      if (!digit_before) return {};
      digit_before = false;
      continue;
    }
    const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : 99;
    if (digit >= base) return {};
    if (value >> 121 != 0) throw Failure("the integer is too large: 127 bits is the limit");
    value = value * base + digit;
    digit_before = any = true;
  }
  if (!any || !digit_before) return {};
  if (automatic && !after_prefix && value != 0 && s[0] == '0') return {};
  ok = true;
  return negative ? -value : value;
}

bool parse_float(std::string_view text, double& out) {
  const std::string s = plain_number(text);
  std::string digits;
  for (size_t i = 0; i < s.size(); ++i) {
    const auto is_number = [&](size_t k) { return k < s.size() && s[k] >= '0' && s[k] <= '9'; };
    if (s[i] != '_') {
      digits += s[i];
    } else if (i == 0 || !is_number(i - 1) || !is_number(i + 1)) {
      return false;
    }
  }
  if (digits.empty() || digits.find_first_of("xXpP") != std::string::npos) return false;  // strtod reads hex
  std::string bare = lower(digits);
  if (bare[0] == '+' || bare[0] == '-') bare.erase(0, 1);
  const bool word = bare == "inf" || bare == "infinity" || bare == "nan";
  if (!word && (bare.empty() || (bare[0] != '.' && !(bare[0] >= '0' && bare[0] <= '9')))) return false;
  char* end = nullptr;
  out = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size();
}

}  // namespace thimble::jinja
