#pragma once

#include <memory>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace thimble::jinja {

// The variables of one call of a template function (the template itself, a macro, a call block, a recursive loop):
// Python's local variables and closure cells.
struct Activation {
  std::vector<Value> slots;
  std::shared_ptr<Activation> parent;
};

// A {% macro %}, or the body of a {% call %} or {% generation %} block, bound to where it was defined.
struct Macro {
  std::string name;  // empty for a caller
  const MacroCode* code;
  std::shared_ptr<Activation> closure;
  class Context* context;
};

int64_t loop_length(Runtime& runtime, Loop& loop);

}  // namespace thimble::jinja
