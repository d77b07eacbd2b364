#include <cmath>

#include <fmt/format.h>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"

// Filters on numbers, defaults and JSON.
namespace thimble::jinja {

namespace {
using Args = Arguments;

Value absolute(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("abs", arguments);
  Int integer;
  if (as_int(self, integer)) return integer < 0 ? unary(i.runtime, Expr::Op::kSub, self) : Value(integer);
  if (const auto* number = self.get<double>()) return Value(std::fabs(*number));
  throw Failure(fmt::format("bad operand type for abs(): '{}'", type_name(self)));
}

Int truncated(double value) {
  if (std::fabs(value) > 1e38) throw Failure("the integer is too large: 127 bits is the limit");
  return static_cast<Int>(value);
}

Value to_int(Interpreter&, const Value& self, Args& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  const Value fallback = bound.has(0) ? bound[0] : Value(0);
  Int integer;
  if (as_int(self, integer)) return integer;
  if (const auto* number = self.get<double>()) {
    if (std::isinf(*number)) throw Failure("cannot convert float infinity to integer");
    return std::isnan(*number) ? fallback : Value(truncated(*number));
  }
  if (self.is_undefined()) fail_undefined(self);
  if (const Text* text = self.text()) {
    Int base = 10;
    const bool numeric = !bound.has(1) || as_int(bound[1], base);
    if (numeric && (base == 0 || (base >= 2 && base <= 36))) {
      bool ok;
      Value value = parse_int(*text, base, ok);
      if (ok) return value;
    }
    double number;
    if (parse_float(text->utf8, number) && std::isfinite(number)) return truncated(number);
  }
  return fallback;
}

Value to_float(Interpreter&, const Value& self, Args& arguments) {
  const Bound bound("float", arguments, {"default"});
  double number;
  if (as_number(self, number)) return Value(number);
  if (self.is_undefined()) fail_undefined(self);
  if (self.text() != nullptr && parse_float(self.text()->utf8, number)) return Value(number);
  return bound.has(0) ? bound[0] : Value(0.0);
}

Value round(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const std::string method = bound.has(1) ? bound.text(1).utf8 : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    throw Failure("method must be common, ceil or floor");
  }
  if (method == "common" && bound[0].is_none() && self.is<double>()) {  // Python's round(x, None) gives an int
    if (!std::isfinite(*self.get<double>())) throw Failure("cannot convert float infinity or NaN to integer");
    return truncated(std::nearbyint(*self.get<double>()));
  }
  if (method == "common" && bound[0].is_none()) return round_half_even(i.runtime, self, 0);
  const Int precision = bound.integer(0, 0);
  if (self.is_undefined() && method != "common") fail_undefined(self);
  if (method == "common") return round_half_even(i.runtime, self, precision);
  const Value unit = power(Value(10), Value(precision));
  const Value scaled = multiply(i.runtime, self, unit);
  Int integer;
  double number;
  if (!as_int(scaled, integer)) {
    if (!as_number(scaled, number)) throw Failure("must be real number, not " + type_name(scaled));
    if (!std::isfinite(number)) throw Failure("cannot convert float infinity or NaN to integer");
    integer = truncated(method == "ceil" ? std::ceil(number) : std::floor(number));
  }
  return true_divide(integer, unit);
}

Value or_default(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  if (!self.is_undefined() && !(bound.flag(1, false) && !truthy(self))) return self;
  return bound.has(0) ? bound[0] : make_text(i.runtime, "");
}

Value attr(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  const std::string& name = bound.text(0).utf8;
  const auto* dict = self.get<DictP>();
  if (dict != nullptr && find_method(self, name) == nullptr && !is_unsafe_attribute(self, name)) {
    return make_undefined(fmt::format("'dict object' has no attribute '{}'", name));  // items don't count
  }
  return i.getattr(self, name);
}

Value tojson(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  if (bound.has(1) && !bound[1].is_none()) {
    style.indented = true;
    style.item_separator.resize(1);  // no space before a line break
    if (const Text* text = bound[1].text()) {
      style.indent = text->utf8;
    } else {
      const Int width = bound.integer(1, 0);
      if (width > 1000) throw Failure("tojson: the indent is too large");
      style.indent.assign(static_cast<size_t>(width < 0 ? Int{0} : width), ' ');
    }
  }
  if (bound.has(2) && !bound[2].is_none()) {
    const auto parts = to_vector(i.runtime, bound[2]);
    if (parts.size() != 2 || parts[0].text() == nullptr || parts[1].text() == nullptr) {
      throw Failure("tojson: separators must be two strings");
    }
    style.item_separator = parts[0].text()->utf8;
    style.key_separator = parts[1].text()->utf8;
  }
  style.sort_keys = bound.flag(3, false);
  return make_text(i.runtime, to_json(i.runtime, self, style));
}
}  // namespace

Builtin find_value_filter(std::string_view name) {
  static constexpr std::pair<std::string_view, Builtin> kFilters[] = {
      {"default", or_default}, {"d", or_default}, {"tojson", tojson}, {"int", to_int}, {"float", to_float},
      {"abs", absolute}, {"round", round}, {"attr", attr}};
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return nullptr;
}

Builtin find_filter(std::string_view name) {
  for (const auto find : {find_value_filter, find_text_filter, find_sequence_filter, find_lazy_filter}) {
    if (const Builtin filter = find(name)) return filter;
  }
  return nullptr;
}

}  // namespace thimble::jinja
