#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace thimble::jinja {

class Context;

Builtin find_filter(std::string_view name);  // null where there is none
Builtin find_test(std::string_view name);    // returns a bool value
// The method that Python's type has under this name; null where it has none.
Builtin find_method(const Value& object, std::string_view name);
// Attributes that are not methods: loop.index, range.stop ...
bool find_property(Interpreter& interpreter, const Value& object, std::string_view name, Value& out);
// A method that the sandbox keeps from templates: it would change a list or dict.
bool is_unsafe_attribute(const Value& object, std::string_view name);
void add_globals(Interpreter& interpreter, Context& context);

// Arguments matched to parameters as Python does. A parameter named "" takes no keyword. Fails with Python's messages.
class Bound {
 public:
  Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
        size_t required = 0);
  bool has(size_t i) const { return !values_[i].is_missing(); }
  const Value& operator[](size_t i) const { return values_[i]; }
  bool flag(size_t i, bool fallback) const;            // truth of the argument
  Int integer(size_t i, Int fallback) const;           // fails unless it is an int
  const Text& text(size_t i) const;                    // fails unless it is a str

 private:
  std::string function_;
  std::vector<Value> values_;
};

void no_arguments(std::string_view function, const Arguments& arguments);

// Filter tables, one a file.
Builtin find_text_filter(std::string_view name);
Builtin find_sequence_filter(std::string_view name);
Builtin find_lazy_filter(std::string_view name);
Builtin find_value_filter(std::string_view name);
Builtin find_string_method(std::string_view name);

// Parts of string methods that filters share.
Value strip(Runtime& runtime, const Text& text, const Value& chars, bool left, bool right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
std::string replace_all(Runtime& runtime, const Text& text, const std::string& from, const std::string& to, Int count);
Value parse_int(const Text& text, Int base, bool& ok);
bool parse_float(std::string_view text, double& out);
Value center_text(Runtime& runtime, const Text& text, Int width, const std::string& fill);
size_t find_from(std::string_view text, std::string_view part, size_t from);  // in linear time
// At runs of white space, at most `limit` times (all where negative), from the right where reverse.
std::vector<std::string_view> split_on_space(std::string_view text, Int limit, bool reverse);

}  // namespace thimble::jinja
