#pragma once

#include <string_view>

#include "calls/json.h"

namespace thimble {

// One schema that accepts what both accept: how allOf, and keywords beside $ref or anyOf, are made plain for the
// grammar. References stay as they are (both sides having one gives an allOf of them). Throws Error with `where` for
// pairs of keywords that can't be put into one schema, such as two patterns.
Json merge_schemas(const Json& a, const Json& b, std::string_view where);

}  // namespace thimble
