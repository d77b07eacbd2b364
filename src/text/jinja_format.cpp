#include <algorithm>
#include <cmath>
#include <cstdio>

#include <fmt/format.h>

#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

// Python's format(value, spec), the mini-language of str.format, and the % operator of strings.
namespace thimble::jinja {

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
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

namespace {
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > = ^
  char sign = '-';
  bool alternate = false, zero = false;
  Int width = 0, precision = -1;
  char grouping = 0, type = 0;
};

constexpr Int kMaxWidth = 1 << 26;

Int read_number(std::string_view text, size_t& at) {
  Int n = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    n = n * 10 + (text[at++] - '0');
    if (n > kMaxWidth) throw Failure("a width or precision is too large");
  }
  return n;
}

bool is_align(char c) { return c == '<' || c == '>' || c == '=' || c == '^'; }
bool is_digit_char(char c) { return c >= '0' && c <= '9'; }

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
    case '<': return prefix + body + fill(missing);
    case '=': return prefix + fill(missing) + body;
    case '^': return fill(missing / 2) + prefix + body + fill(missing - missing / 2);
    default: return fill(missing) + prefix + body;
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
    case 'e': case 'E': case 'f': case 'F': case 'g': case 'G':
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
    case 0: case 'd': case 'n': break;
    case 'b': base = 2, prefix = "0b"; break;
    case 'o': base = 8, prefix = "0o"; break;
    case 'x': base = 16, prefix = "0x"; break;
    case 'X': base = 16, prefix = "0X"; break;
    default: throw Failure(fmt::format("Unknown format code '{}' for object of type 'int'", spec.type));
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

std::string ascii_repr(Runtime& runtime, const Value& value) {
  const std::string text = repr(runtime, value);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<uint32_t>(decode_at(text, at));
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      out += c < 0x100 ? fmt::format("\\x{:02x}", c) : c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
    }
  }
  return out;
}
}  // namespace

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

namespace {
// One use of the % operator.
class PercentFormat {
 public:
  PercentFormat(Interpreter& interpreter, const Text& format, const Value& values)
      : interpreter_(interpreter), runtime_(interpreter.runtime), format_(format.utf8), markup_(format.markup) {
    if (const auto* tuple = values.get<TupleP>()) {
      items_ = (*tuple)->items;
    } else {
      items_ = {values};
      mapping_ = !values.text() && (values.is<DictP>() || values.is<ListP>() || values.is<RangeP>());
      single_ = true;
    }
  }

  std::string run() {
    while (at_ < format_.size()) {
      const char c = format_[at_++];
      if (c != '%') {
        add(std::string_view(&c, 1));
      } else {
        conversion();
      }
    }
    if (used_ < items_.size() && !mapping_) throw Failure("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  void add(std::string_view text) {
    if (out_.size() + text.size() > runtime_.options.max_output) {
      throw Failure("the template makes a text that is too long");
    }
    out_ += text;
  }
  char peek() const {
    if (at_ >= format_.size()) throw Failure("incomplete format");
    return format_[at_];
  }
  Value next_item() {
    if (keyed_) return *keyed_;
    if (used_ >= items_.size()) throw Failure("not enough arguments for format string");
    return items_[used_++];
  }
  Int star_or_number() {
    if (peek() == '*') {
      ++at_;
      Int n;
      if (!as_int(next_item(), n)) throw Failure("* wants int");
      if (n > kMaxWidth || n < -kMaxWidth) throw Failure("a width or precision is too large");
      return n;
    }
    return read_number(format_, at_);
  }

  void conversion() {
    keyed_.reset();
    if (peek() == '(') {
      int depth = 1;
      const size_t begin = ++at_;
      while (depth > 0) {
        if (at_ >= format_.size()) throw Failure("incomplete format key");
        depth += format_[at_] == '(' ? 1 : format_[at_] == ')' ? -1 : 0;
        ++at_;
      }
      if (!mapping_) throw Failure("format requires a mapping");
      const Value key = make_text(runtime_, format_.substr(begin, at_ - begin - 1));
      Value found;
      if (!subscript(runtime_, items_[0], key, found)) throw Failure(str(runtime_, key));
      keyed_ = found;
    }
    Spec spec;
    bool left = false;
    for (;; ++at_) {
      const char c = peek();
      if (c == '-') {
        left = true;
      } else if (c == '+' || (c == ' ' && spec.sign != '+')) {
        spec.sign = c;
      } else if (c == '#') {
        spec.alternate = true;
      } else if (c == '0') {
        spec.zero = true;
      } else if (c != ' ') {
        break;
      }
    }
    spec.width = star_or_number();
    if (spec.width < 0) {
      left = true;
      spec.width = -spec.width;
    }
    if (peek() == '.') {
      ++at_;
      spec.precision = std::max<Int>(0, star_or_number());
    }
    if (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    const char type = peek();
    ++at_;
    if (type == '%') return add("%");
    const Value item = next_item();
    const char align = left ? '<' : '>';
    if (type == 's' || type == 'r' || type == 'a') return text(type, item, spec, align);
    if (type == 'c') return character(item, spec, align);
    number(type, item, spec, align);
  }

  void text(char type, const Value& item, const Spec& spec, char align) {
    std::string body = type == 's' ? str(runtime_, item) : type == 'r' ? repr(runtime_, item) : ascii_repr(runtime_, item);
    if (markup_) {
      const Text* plain = item.text();
      if (type != 's' || plain == nullptr || !plain->markup) body = escape_html(body);
    }
    if (spec.precision >= 0) body.resize(byte_offset(body, static_cast<size_t>(spec.precision)));
    add(pad(runtime_, "", body, spec, align));
  }

  void character(const Value& item, const Spec& spec, char align) {
    Int code;
    std::string body;
    if (const Text* plain = item.text()) {
      if (plain->length != 1) throw Failure("%c requires int or char");
      body = plain->utf8;
    } else if (as_int(item, code)) {
      if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
        throw Failure("%c arg not in range(0x110000)");
      }
      append_utf8(body, static_cast<char32_t>(code));
    } else {
      throw Failure("%c requires int or char");
    }
    add(pad(runtime_, "", body, spec, align));
  }

  void number(char type, const Value& item, Spec spec, char align) {
    std::string body, prefix;
    bool negative = false;
    if (std::string_view("diuoxX").find(type) != std::string_view::npos) {
      Int value;
      const auto* real = item.get<double>();
      if (real != nullptr && (type == 'd' || type == 'i' || type == 'u')) {
        if (!std::isfinite(*real)) throw Failure("cannot convert float infinity or NaN to integer");
        if (std::fabs(*real) > 1e38) throw Failure("the integer is too large: 127 bits is the limit");
        value = static_cast<Int>(*real);
      } else if (!as_int(item, value)) {
        if (item.is_undefined()) fail_undefined(item);
        throw Failure(fmt::format("%{} format: a real number is required, not {}", type, type_name(item)));
      }
      negative = value < 0;
      body = int_text(value, type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10);
      if (negative) body.erase(0, 1);
      if (spec.precision > static_cast<Int>(body.size())) {
        runtime_.charge_text(static_cast<size_t>(spec.precision));
        body.insert(0, static_cast<size_t>(spec.precision) - body.size(), '0');
      }
      if (spec.alternate && type != 'd' && type != 'i' && type != 'u') prefix = type == 'o' ? "0o" : "0x";
      if (type == 'X') {
        for (auto& c : body) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
        if (!prefix.empty()) prefix = "0X";
      }
    } else if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
      double value;
      if (!as_number(item, value)) {
        if (item.is_undefined()) fail_undefined(item);
        throw Failure(fmt::format("must be real number, not {}", type_name(item)));
      }
      negative = std::signbit(value) && !std::isnan(value);
      body = print_float(type, spec.precision < 0 ? 6 : spec.precision, std::fabs(value), spec.alternate);
    } else {
      throw Failure(fmt::format("unsupported format character '{}'", type));
    }
    prefix = (negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign)) + prefix;
    if (spec.zero && align == '>') {
      spec.fill = "0";
      align = '=';
    }
    add(pad(runtime_, prefix, body, spec, align));
  }

  Interpreter& interpreter_;
  Runtime& runtime_;
  const std::string& format_;
  bool markup_;
  std::vector<Value> items_;
  std::optional<Value> keyed_;
  size_t used_ = 0, at_ = 0;
  bool mapping_ = false, single_ = false;
  std::string out_;
};
}  // namespace

std::string percent_format(Interpreter& interpreter, const Text& format, const Value& values) {
  return PercentFormat(interpreter, format, values).run();
}

namespace {
// string.Formatter.vformat, as jinja2's sandbox runs it: fields go through the interpreter's attribute look-up.
class BraceFormat {
 public:
  BraceFormat(Interpreter& interpreter, const std::vector<Value>& positional,
              const std::function<Value(const std::string&)>& keyword, bool markup)
      : interpreter_(interpreter), positional_(positional), keyword_(keyword), markup_(markup) {}

  std::string run(std::string_view format, int levels) {
    if (levels < 0) throw Failure("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < format.size();) {
      const char c = format[at++];
      if ((c == '{' || c == '}') && at < format.size() && format[at] == c) {
        out += c;
        ++at;
      } else if (c == '}') {
        throw Failure("Single '}' encountered in format string");
      } else if (c == '{') {
        const size_t begin = at;
        int depth = 1;
        while (at < format.size() && depth > 0) {
          depth += format[at] == '{' ? 1 : format[at] == '}' ? -1 : 0;
          ++at;
        }
        if (begin >= format.size()) throw Failure("Single '{' encountered in format string");
        if (depth > 0) throw Failure("expected '}' before end of string");
        out += field(format.substr(begin, at - begin - 1), levels);
      } else {
        out += c;
      }
      if (out.size() > interpreter_.runtime.options.max_output) {
        throw Failure("the template makes a text that is too long");
      }
    }
    interpreter_.runtime.charge_text(out.size());
    return out;
  }

 private:
  std::string field(std::string_view text, int levels) {
    Runtime& runtime = interpreter_.runtime;
    size_t end = 0;
    bool bracket = false;
    for (; end < text.size(); ++end) {
      if (text[end] == '[') bracket = true;
      if (text[end] == ']') bracket = false;
      if (!bracket && (text[end] == ':' || text[end] == '!')) break;
      if (text[end] == '{') throw Failure("unexpected '{' in field name");
    }
    const std::string_view name = text.substr(0, end);
    char conversion = 0;
    std::string spec;
    if (end < text.size() && text[end] == '!') {
      if (end + 1 >= text.size()) throw Failure("end of string while looking for conversion specifier");
      conversion = text[end + 1];
      end += 2;
      if (end < text.size() && text[end] != ':') throw Failure("expected ':' after conversion specifier");
    }
    Value value = lookup(name);  // before the specification's own fields, which numbers them as Python does
    if (end < text.size()) spec = run(text.substr(end + 1), levels - 1);
    switch (conversion) {
      case 0: break;
      case 's': value = make_text(runtime, str(runtime, value)); break;
      case 'r': value = make_text(runtime, repr(runtime, value)); break;
      case 'a': value = make_text(runtime, ascii_repr(runtime, value)); break;
      default: throw Failure(fmt::format("Unknown conversion specifier {}", conversion));
    }
    const std::string out = format_value(runtime, value, spec);
    const bool safe = value.text() != nullptr && value.text()->markup;
    return markup_ && !safe ? escape_html(out) : out;
  }

  static bool all_digits(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), is_digit_char);
  }

  Value lookup(std::string_view name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    std::string first(name.substr(0, at));
    if (first.empty()) {
      if (next_ < 0) throw Failure("cannot switch from manual field specification to automatic field numbering");
      first = std::to_string(next_++);
    } else if (all_digits(first)) {
      if (next_ > 0) throw Failure("cannot switch from manual field specification to automatic field numbering");
      next_ = -1;
    }
    Value value;
    if (all_digits(first)) {
      const size_t index = first.size() > 9 ? positional_.size() : std::stoul(first);
      if (index >= positional_.size()) {
        throw Failure(fmt::format("Replacement index {} out of range for positional args tuple", first));
      }
      value = positional_[index];
    } else {
      value = keyword_(first);
    }
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) throw Failure("Empty attribute in format string");
        value = interpreter_.getattr(value, std::string(name.substr(at + 1, end - at - 1)));
        at = end;
      } else {
        const size_t end = name.find(']', at);
        if (end == std::string_view::npos) throw Failure("Missing ']' in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        if (key.empty()) throw Failure("Empty attribute in format string");
        if (end + 1 < name.size() && name[end + 1] != '.' && name[end + 1] != '[') {
          throw Failure("Only '.' or '[' may follow ']' in format field specifier");
        }
        const bool index = all_digits(key) && key.size() < 18;
        value = interpreter_.getitem(
            value, index ? Value(static_cast<int64_t>(std::stoll(std::string(key))))
                         : make_text(interpreter_.runtime, std::string(key)));
        at = end + 1;
      }
    }
    return value;
  }

  Interpreter& interpreter_;
  const std::vector<Value>& positional_;
  const std::function<Value(const std::string&)>& keyword_;
  bool markup_;
  int next_ = 0;  // automatic numbering; -1 once a field was numbered by hand
};
}  // namespace

std::string str_format(Interpreter& interpreter, const Text& format, const std::vector<Value>& positional,
                       const std::function<Value(const std::string&)>& keyword) {
  return BraceFormat(interpreter, positional, keyword, format.markup).run(format.utf8, 2);
}

}  // namespace thimble::jinja
