#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"

// Python's arithmetic.
namespace thimble::jinja {

using Op = Expr::Op;

namespace {
[[noreturn]] void fail_large() { throw Failure("the integer is too large: 127 bits is the limit"); }

}  // namespace

Int checked_add(Int a, Int b) {
  Int sum;
  if (__builtin_add_overflow(a, b, &sum)) fail_large();
  return sum;
}

Int checked_negate(Int a) {
  Int result;
  if (__builtin_sub_overflow(Int{0}, a, &result)) fail_large();
  return result;
}

// Without __builtin_mul_overflow, whose 128-bit helper libgcc does not have.
Int checked_multiply(Int a, Int b) {
  if (a == 0 || b == 0) return 0;
  using Wide = unsigned __int128;
  const Wide x = a < 0 ? -static_cast<Wide>(a) : static_cast<Wide>(a);
  const Wide y = b < 0 ? -static_cast<Wide>(b) : static_cast<Wide>(b);
  const Wide product = x * y;
  if (product / x != y || product >> 127 != 0) fail_large();
  return (a < 0) != (b < 0) ? -static_cast<Int>(product) : static_cast<Int>(product);
}

namespace {
const char* symbol(Op op) {
  switch (op) {
    case Op::kAdd:
      return "+";
    case Op::kSub:
      return "-";
    case Op::kMul:
      return "*";
    case Op::kDiv:
      return "/";
    case Op::kFloorDiv:
      return "//";
    case Op::kMod:
      return "%";
    case Op::kPow:
      return "** or pow()";
    case Op::kEq:
      return "==";
    case Op::kNe:
      return "!=";
    case Op::kLt:
      return "<";
    case Op::kLe:
      return "<=";
    case Op::kGt:
      return ">";
    case Op::kGe:
      return ">=";
    case Op::kIn:
      return "in";
    case Op::kNotIn:
      return "not in";
  }
  return "";
}

[[noreturn]] void fail_types(Op op, const Value& a, const Value& b) {
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  throw Failure(
      fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(a), type_name(b)));
}

Int floor_divide(Int a, Int b) {
  if (b == -1) return checked_negate(a);
  const Int quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Int floor_modulo(Int a, Int b) {
  if (b == -1) return 0;
  const Int rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double float_modulo(double a, double b) {  // as CPython's float_rem
  double rest = std::fmod(a, b);
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) rest += b;
  } else {
    rest = std::copysign(0.0, b);
  }
  return rest;
}

double float_floor_divide(double a, double b) {  // as CPython's _float_div_mod
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1.0;
  if (quotient == 0) return std::copysign(0.0, a / b);
  double floor = std::floor(quotient);
  if (quotient - floor > 0.5) floor += 1.0;
  return floor;
}

Value repeat(Runtime& runtime, const Value& sequence, Int times) {
  const size_t count = times <= 0 ? 0 : times > (Int{1} << 40) ? size_t{1} << 40 : static_cast<size_t>(times);
  if (const Text* text = sequence.text()) {
    if (!text->utf8.empty() && count > runtime.options.max_output / text->utf8.size()) {
      throw Failure("the template makes a text that is too long");
    }
    std::string out;
    for (size_t i = 0; i < count && !text->utf8.empty(); ++i) out += text->utf8;
    return make_text(runtime, std::move(out), text->markup);
  }
  const auto* list = sequence.get<ListP>();
  const auto& items = list != nullptr ? (*list)->items : (*sequence.get<TupleP>())->items;
  if (!items.empty()) runtime.charge(std::min<size_t>(count, size_t{1} << 32) * items.size() * sizeof(Value));
  std::vector<Value> out;
  for (size_t i = 0; i < count && !items.empty(); ++i) out.insert(out.end(), items.begin(), items.end());
  return list != nullptr ? make_list(runtime, std::move(out)) : make_tuple(runtime, std::move(out));
}

bool is_sequence(const Value& v) { return v.text() != nullptr || v.is<ListP>() || v.is<TupleP>(); }

std::vector<Value> joined(const std::vector<Value>& a, const std::vector<Value>& b) {
  std::vector<Value> items;
  items.reserve(a.size() + b.size());
  items.insert(items.end(), a.begin(), a.end());
  items.insert(items.end(), b.begin(), b.end());
  return items;
}
}  // namespace

Value add(Runtime& runtime, const Value& a, const Value& b) {
  Int i, j;
  double x, y;
  if (as_int(a, i) && as_int(b, j)) return checked_add(i, j);
  if (as_number(a, x) && as_number(b, y)) return Value(x + y);
  if (const Text *s = a.text(), *t = b.text(); s && t) {
    runtime.charge_text(s->utf8.size() + t->utf8.size());
    if (s->markup || t->markup) {
      const auto part = [](const Text& text) { return text.markup ? text.utf8 : escape_html(text.utf8); };
      return make_text(runtime, part(*s) + part(*t), true);
    }
    return make_text(runtime, s->utf8 + t->utf8);
  }
  if (a.is<ListP>() && b.is<ListP>()) {
    runtime.charge(((*a.get<ListP>())->items.size() + (*b.get<ListP>())->items.size()) * sizeof(Value));
    return make_list(runtime, joined((*a.get<ListP>())->items, (*b.get<ListP>())->items));
  }
  if (a.is<TupleP>() && b.is<TupleP>()) {
    runtime.charge(((*a.get<TupleP>())->items.size() + (*b.get<TupleP>())->items.size()) * sizeof(Value));
    return make_tuple(runtime, joined((*a.get<TupleP>())->items, (*b.get<TupleP>())->items));
  }
  if (b.is_undefined()) fail_undefined(b);
  if (a.text() != nullptr) {
    throw Failure(fmt::format("can only concatenate str (not \"{}\") to str", type_name(b)));
  }
  if (a.is<ListP>()) throw Failure(fmt::format("can only concatenate list (not \"{}\") to list", type_name(b)));
  fail_types(Op::kAdd, a, b);
}

Value multiply(Runtime& runtime, const Value& a, const Value& b) {
  Int i, j;
  double x, y;
  if (as_int(a, i) && as_int(b, j)) return checked_multiply(i, j);
  if (as_number(a, x) && as_number(b, y)) return Value(x * y);
  if (is_sequence(a) && as_int(b, j)) return repeat(runtime, a, j);
  if (is_sequence(b) && as_int(a, i)) return repeat(runtime, b, i);
  fail_types(Op::kMul, a, b);
}

Value true_divide(const Value& a, const Value& b) {
  double x, y;
  if (!as_number(a, x) || !as_number(b, y)) fail_types(Op::kDiv, a, b);
  if (y == 0) throw Failure(a.is<double>() || b.is<double>() ? "float division by zero" : "division by zero");
  Int i, j;
  if (as_int(a, i) && as_int(b, j))
    return Value(static_cast<double>(static_cast<long double>(i) / static_cast<long double>(j)));
  return Value(x / y);
}

Value power(const Value& a, const Value& b) {
  Int i, j;
  double x, y;
  if (as_int(a, i) && as_int(b, j) && j >= 0) {
    Int result = 1;
    if (i == 0 || i == 1) return j == 0 ? Int{1} : i;
    if (i == -1) return j % 2 == 0 ? Int{1} : Int{-1};
    for (Int k = 0; k < j; ++k) result = checked_multiply(result, i);  // fails within 127 rounds
    return result;
  }
  if (!as_number(a, x) || !as_number(b, y)) fail_types(Op::kPow, a, b);
  if (x == 0 && y < 0) throw Failure("0.0 cannot be raised to a negative power");
  if (x < 0 && std::isfinite(x) && std::isfinite(y) && std::floor(y) != y) {
    throw Failure("a negative number to a fractional power is a complex number, which is not supported");
  }
  const double result = std::pow(x, y);
  if (std::isinf(result) && std::isfinite(x) && std::isfinite(y)) throw Failure("Numerical result out of range");
  return Value(result);
}

Value unary(Runtime& runtime, Op op, const Value& a) {
  (void)runtime;
  Int i;
  if (as_int(a, i)) return op == Op::kSub ? checked_negate(i) : i;
  if (const auto* x = a.get<double>()) return Value(op == Op::kSub ? -*x : *x);
  if (a.is_undefined()) fail_undefined(a);
  throw Failure(fmt::format("bad operand type for unary {}: '{}'", op == Op::kSub ? "-" : "+", type_name(a)));
}

namespace {
Value subtract(const Value& a, const Value& b) {
  Int i, j;
  double x, y;
  if (as_int(a, i) && as_int(b, j)) {
    Int result;
    if (__builtin_sub_overflow(i, j, &result)) fail_large();
    return result;
  }
  if (as_number(a, x) && as_number(b, y)) return Value(x - y);
  fail_types(Op::kSub, a, b);
}

Value divide_or_modulo(Op op, const Value& a, const Value& b) {
  Int i, j;
  double x, y;
  const bool modulo = op == Op::kMod;
  if (as_int(a, i) && as_int(b, j)) {
    if (j == 0) throw Failure(modulo ? "integer modulo by zero" : "integer division or modulo by zero");
    return modulo ? floor_modulo(i, j) : floor_divide(i, j);
  }
  if (!as_number(a, x) || !as_number(b, y)) fail_types(op, a, b);
  if (y == 0) throw Failure(modulo ? "float modulo" : "float floor division by zero");
  return Value(modulo ? float_modulo(x, y) : float_floor_divide(x, y));
}
}  // namespace

Value binary(Interpreter& interpreter, Op op, const Value& a, const Value& b) {
  Runtime& runtime = interpreter.runtime;
  switch (op) {
    case Op::kAdd:
      return add(runtime, a, b);
    case Op::kSub:
      return subtract(a, b);
    case Op::kMul:
      return multiply(runtime, a, b);
    case Op::kDiv:
      return true_divide(a, b);
    case Op::kPow:
      return power(a, b);
    case Op::kMod:
      if (const Text* format = a.text()) {
        return make_text(runtime, percent_format(interpreter, *format, b), format->markup);
      }
      return divide_or_modulo(op, a, b);
    default:
      return divide_or_modulo(op, a, b);
  }
}

Value round_half_even(Runtime& runtime, const Value& value, Int digits) {
  (void)runtime;
  Int integer;
  if (as_int(value, integer)) {
    if (digits >= 0) return integer;
    if (digits < -38) return Int{0};
    Int unit = 1;
    for (Int k = 0; k < -digits; ++k) unit = checked_multiply(unit, 10);
    Int rest = floor_modulo(integer, unit);
    Int base = integer - rest;
    const Int twice = rest * 2;
    if (twice > unit || (twice == unit && (base / unit) % 2 != 0)) base = checked_add(base, unit);
    return base;
  }
  const auto* number = value.get<double>();
  if (number == nullptr) {
    throw Failure(fmt::format("type {} doesn't define __round__ method", type_name(value)));
  }
  if (!std::isfinite(*number) || digits > 323) return value;
  if (digits < -308) return Value(std::copysign(0.0, *number));
  if (digits >= 0) {  // the decimal digits are exact, as in CPython
    char buffer[700];
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(digits), *number);
    return Value(std::strtod(buffer, nullptr));
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  const double result = std::nearbyint(*number / unit) * unit;
  if (!std::isfinite(result)) throw Failure("rounded value too large to represent");
  return Value(result);
}

}  // namespace thimble::jinja
