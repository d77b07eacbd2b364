#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>

#include "text/jinja_format.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

namespace thimble::jinja {

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
    std::string body = type == 's'   ? str(runtime_, item)
                       : type == 'r' ? repr(runtime_, item)
                                     : ascii_repr(runtime_, item);
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

}  // namespace thimble::jinja
