#include "text/jinja_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

// Python's format(value, spec), and what is escaped for HTML.
namespace thimble::jinja {

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Value escaped(Runtime& runtime, const Value& value) {
  if (const Text* text = value.text(); text != nullptr && text->markup) return value;
  const std::string plain = str(runtime, value);
  runtime.charge_text(plain.size() * 5);
  return make_text(runtime, escape_html(plain), true);
}

Int read_number(std::string_view text, size_t& at) {
  Int n = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    n = n * 10 + (text[at++] - '0');
    if (n > kMaxWidth) throw Failure("a width or precision is too large");
  }
  return n;
}

namespace {
bool is_align(char c) { return c == '<' || c == '>' || c == '=' || c == '^'; }
bool is_digit_char(char c) { return c >= '0' && c <= '9'; }

}  // namespace

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto peek = [&] { return at < text.size() ? text[at] : '\0'; };
  if (!text.empty()) {
    size_t second = 0;
    decode_at(text, second);
    if (second < text.size() && is_align(text[second])) {
      spec.fill = std::string(text.substr(0, second));
      spec.align = text[second];
      at = second + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      at = 1;
    }
  }
  if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = text[at++];
  if (peek() == '#') spec.alternate = true, ++at;
  if (peek() == '0') {
    spec.zero = true;
    if (spec.align == 0) spec.fill = "0";
    ++at;
  }
  spec.width = read_number(text, at);
  if (peek() == ',' || peek() == '_') spec.grouping = text[at++];
  if (peek() == '.') {
    ++at;
    if (!is_digit_char(peek())) throw Failure("Format specifier missing precision");
    spec.precision = read_number(text, at);
  }
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size()) throw Failure("Invalid format specifier");
  return spec;
}

namespace {
// `digits` with a separator every `size` of them; zeros on the left until they have the width.
std::string group(std::string digits, char separator, size_t size, size_t width) {
  std::string reversed;
  size_t count = 0;
  for (auto it = digits.rbegin(); it != digits.rend() || reversed.size() < width; ++count) {
    if (separator != 0 && count > 0 && count % size == 0) reversed += separator;
    reversed += it != digits.rend() ? *it++ : '0';
  }
  std::reverse(reversed.begin(), reversed.end());
  return reversed;
}

}  // namespace

std::string pad(Runtime& runtime, const std::string& prefix, const std::string& body, const Spec& spec, char align) {
  const Int length = static_cast<Int>(count_code_points(prefix) + count_code_points(body));
  const auto missing = static_cast<size_t>(std::max<Int>(0, spec.width - length));
  runtime.charge_text(missing * spec.fill.size() + prefix.size() + body.size());
  const auto fill = [&](size_t n) {
    std::string out;
    for (size_t i = 0; i < n; ++i) out += spec.fill;
    return out;
  };
  switch (align) {
    case '<':
      return prefix + body + fill(missing);
    case '=':
      return prefix + fill(missing) + body;
    case '^':
      return fill(missing / 2) + prefix + body + fill(missing - missing / 2);
    default:
      return fill(missing) + prefix + body;
  }
}

std::string print_float(char type, Int precision, double value, bool alternate) {
  if (std::isnan(value)) return std::isupper(static_cast<unsigned char>(type)) ? "NAN" : "nan";
  if (std::isinf(value)) return std::isupper(static_cast<unsigned char>(type)) ? "INF" : "inf";
  if (precision > 100'000) throw Failure("the precision is too large");
  const std::string format = std::string(alternate ? "%#.*" : "%.*") + type;
  std::string out(static_cast<size_t>(precision) + 330, '\0');
  const int n = std::snprintf(out.data(), out.size(), format.c_str(), static_cast<int>(precision), value);
  out.resize(static_cast<size_t>(n));
  return out;
}

namespace {
// A float without a type: like repr, or with a precision like %g that always shows a point or an exponent.
std::string print_plain_float(double value, Int precision) {
  if (precision < 0 || !std::isfinite(value)) return float_repr(value);
  if (precision == 0) precision = 1;
  const std::string scientific = print_float('e', precision - 1, value, false);
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(scientific.c_str() + e + 1);
  if (exponent >= -4 && exponent + 1 <= static_cast<int>(precision) - 1) {
    std::string fixed = print_float('f', precision - 1 - exponent, value, false);
    while (fixed.find('.') != std::string::npos && fixed.back() == '0') fixed.pop_back();
    if (fixed.back() == '.') fixed += '0';
    return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
  }
  std::string mantissa = scientific.substr(0, e);
  if (exponent >= -4 && exponent < 0) {
    std::string fixed = print_float('f', precision - 1 - exponent, value, false);
    while (fixed.back() == '0') fixed.pop_back();
    return fixed;
  }
  while (mantissa.find('.') != std::string::npos && (mantissa.back() == '0' || mantissa.back() == '.')) {
    const bool point = mantissa.back() == '.';
    mantissa.pop_back();
    if (point) break;
  }
  return mantissa + scientific.substr(e);
}

std::string format_float(Runtime& runtime, double value, const Spec& spec) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::fabs(value);
  std::string body;
  switch (spec.type) {
    case 0:
      body = print_plain_float(magnitude, spec.precision);
      break;
    case '%':
      body = print_float('f', spec.precision < 0 ? 6 : spec.precision, magnitude * 100, spec.alternate) + "%";
      break;
    case 'n':
      body = print_float('g', spec.precision < 0 ? 6 : spec.precision, magnitude, spec.alternate);
      break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      body = print_float(spec.type, spec.precision < 0 ? 6 : spec.precision, magnitude, spec.alternate);
      break;
    default:
      throw Failure(fmt::format("Unknown format code '{}' for object of type 'float'", spec.type));
  }
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  const char align = spec.align != 0 ? spec.align : spec.zero ? '=' : '>';
  const size_t whole = std::min(body.find_first_not_of("0123456789"), body.size());
  if (spec.grouping != 0 && whole > 0) {
    const Int rest = static_cast<Int>(body.size() - whole + sign.size());
    const bool zeros = align == '=' && spec.fill == "0";
    const auto width = static_cast<size_t>(zeros ? std::max<Int>(0, spec.width - rest) : 0);
    runtime.charge_text(width);
    body = group(body.substr(0, whole), spec.grouping, 3, width) + body.substr(whole);
  }
  return pad(runtime, sign, body, spec, align);
}

std::string format_int(Runtime& runtime, Int value, const Spec& spec) {
  if (spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos) {
    return format_float(runtime, static_cast<double>(value), spec);
  }
  if (spec.precision >= 0) throw Failure("Precision not allowed in integer format specifier");
  const char align = spec.align != 0 ? spec.align : spec.zero ? '=' : '>';
  if (spec.type == 'c') {
    if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      throw Failure("%c arg not in range(0x110000)");
    }
    std::string body;
    append_utf8(body, static_cast<char32_t>(value));
    return pad(runtime, "", body, spec, spec.align != 0 ? spec.align : '<');
  }
  int base = 10;
  std::string prefix;
  switch (spec.type) {
    case 0:
    case 'd':
    case 'n':
      break;
    case 'b':
      base = 2, prefix = "0b";
      break;
    case 'o':
      base = 8, prefix = "0o";
      break;
    case 'x':
      base = 16, prefix = "0x";
      break;
    case 'X':
      base = 16, prefix = "0X";
      break;
    default:
      throw Failure(fmt::format("Unknown format code '{}' for object of type 'int'", spec.type));
  }
  std::string digits = int_text(value, base);
  std::string sign = spec.sign == '-' ? "" : std::string(1, spec.sign);
  if (digits[0] == '-') {
    sign = "-";
    digits.erase(0, 1);
  }
  if (spec.type == 'X') {
    for (auto& c : digits) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  if (spec.alternate) sign += prefix;
  if (spec.grouping != 0) {
    const bool zeros = align == '=' && spec.fill == "0";
    const auto width = static_cast<size_t>(zeros ? std::max<Int>(0, spec.width - static_cast<Int>(sign.size())) : 0);
    runtime.charge_text(width);
    if (spec.grouping == ',' && base != 10) throw Failure(fmt::format("Cannot specify ',' with '{}'.", spec.type));
    digits = group(digits, spec.grouping, base == 10 ? 3 : 4, width);
  }
  return pad(runtime, sign, digits, spec, align);
}

}  // namespace

std::string ascii_repr(Runtime& runtime, const Value& value) {
  const std::string text = repr(runtime, value);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<uint32_t>(decode_at(text, at));
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      out += c < 0x100     ? fmt::format("\\x{:02x}", c)
             : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                           : fmt::format("\\U{:08x}", c);
    }
  }
  return out;
}
std::string format_value(Runtime& runtime, const Value& value, std::string_view text) {
  if (text.empty()) return str(runtime, value);
  Int integer;
  if (const Text* string = value.text()) {
    const Spec spec = parse_spec(text);
    if (spec.type != 0 && spec.type != 's') {
      throw Failure(fmt::format("Unknown format code '{}' for object of type 'str'", spec.type));
    }
    if (spec.sign != '-' || text.find('-') != std::string_view::npos) {
      if (spec.sign != '-') throw Failure("Sign not allowed in string format specifier");
    }
    if (spec.alternate) throw Failure("Alternate form (#) not allowed in string format specifier");
    if (spec.align == '=') throw Failure("'=' alignment not allowed in string format specifier");
    if (spec.grouping != 0) throw Failure(fmt::format("Cannot specify '{}' with 's'.", spec.grouping));
    std::string body = string->utf8;
    if (spec.precision >= 0) body.resize(byte_offset(body, static_cast<size_t>(spec.precision)));
    return pad(runtime, "", body, spec, spec.align != 0 ? spec.align : '<');
  }
  if (as_int(value, integer)) return format_int(runtime, integer, parse_spec(text));
  if (const auto* number = value.get<double>()) return format_float(runtime, *number, parse_spec(text));
  throw Failure(fmt::format("unsupported format string passed to {}.__format__", type_name(value)));
}

}  // namespace thimble::jinja
