#pragma once

#include <set>
#include <string>

#include "text/jinja_ast.h"

namespace thimble::jinja {

struct Resolved {
  FrameCode frame;  // of the template's own function
  int slots = 0;
  std::set<std::string> context_names;  // every name that is looked up in the context somewhere
  bool has_generation = false;
};

// Decides what every name means, before anything runs: which block's variable it is, and what a block's variables
// start as. Follows jinja2's idtracking and compiler to the letter, since templates rely on what they let leak out
// of an `if` and into a macro. Throws Error for what jinja2 refuses to compile: unknown filters and tests outside
// conditions, `break` outside loops, assignments to `loop`.
Resolved resolve(Body& body);

}  // namespace thimble::jinja
