#pragma once

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

// Python's operators on values; each fails with Python's message.
namespace thimble::jinja {

Value binary(Interpreter& interpreter, Expr::Op op, const Value& a, const Value& b);
Value unary(Runtime& runtime, Expr::Op op, const Value& a);  // kSub: -a, kAdd: +a
bool compare(Runtime& runtime, Expr::Op op, const Value& a, const Value& b);
bool contains(Runtime& runtime, const Value& container, const Value& item);
Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);

// object[index]; false where Python raises TypeError or LookupError.
bool subscript(Runtime& runtime, const Value& object, const Value& index, Value& out);

Value add(Runtime& runtime, const Value& a, const Value& b);
// Integer arithmetic that fails beyond 127 bits.
Int checked_add(Int a, Int b);
Int checked_negate(Int a);
Int checked_multiply(Int a, Int b);
Int to_index(const Value& value, const char* what);  // an int argument, or Python's TypeError
Value round_half_even(Runtime& runtime, const Value& value, Int digits);  // Python's round(value, digits)
Value power(const Value& a, const Value& b);
Value true_divide(const Value& a, const Value& b);
Value multiply(Runtime& runtime, const Value& a, const Value& b);

// "format" % values, and "format".format(...), and format(value, spec).
std::string percent_format(Interpreter& interpreter, const Text& format, const Value& values);
std::string str_format(Interpreter& interpreter, const Text& format, const std::vector<Value>& positional,
                       const std::function<Value(const std::string&)>& keyword);
std::string format_value(Runtime& runtime, const Value& value, std::string_view spec);

std::string escape_html(std::string_view text);
Value escaped(Runtime& runtime, const Value& value);  // markupsafe.escape: a Markup stays as it is

}  // namespace thimble::jinja
