#pragma once

#include <vector>

#include "text/jinja_interpreter.h"

namespace thimble::jinja {

// "address.city.0" as filters take it: keys and numbers to go through with the interpreter's item look-up.
class AttributePath {
 public:
  AttributePath(Interpreter& interpreter, const Value& attribute);  // missing or None: the item itself
  // With a fallback (neither missing nor None) that stands in for every undefined step.
  Value get(const Value& item, const Value& fallback = {}) const;

 private:
  Interpreter& interpreter_;
  std::vector<Value> parts_;
};

Value ignore_case(Runtime& runtime, const Value& value);  // a str in lower case

}  // namespace thimble::jinja
