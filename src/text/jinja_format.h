#pragma once

#include <string>
#include <string_view>

#include "text/jinja_value.h"

// What format(value, spec), str.format and the % operator share.
namespace thimble::jinja {

// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > = ^
  char sign = '-';
  bool alternate = false, zero = false;
  Int width = 0, precision = -1;
  char grouping = 0, type = 0;
};

constexpr Int kMaxWidth = 1 << 26;

Int read_number(std::string_view text, size_t& at);  // digits; fails for a width that no text can have
Spec parse_spec(std::string_view text);
// The body behind its sign or prefix, filled up to the width.
std::string pad(Runtime& runtime, const std::string& prefix, const std::string& body, const Spec& spec, char align);
std::string print_float(char type, Int precision, double value, bool alternate);  // of a number without sign
std::string ascii_repr(Runtime& runtime, const Value& value);

}  // namespace thimble::jinja
