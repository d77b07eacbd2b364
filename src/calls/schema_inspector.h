#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "calls/json.h"
#include "calls/pattern.h"

namespace thimble {

using Patterns = std::map<std::string, Pattern, std::less<>>;

// Checks that every keyword of a schema, and of the schemas that it refers to in `document`, is known and well formed,
// and compiles its regular expressions. Throws Error with `where` and the place.
Patterns inspect_schema(const Json& schema, const Json& document, std::string_view where);

std::string pointer_part(std::string_view key);  // a key as part of a JSON pointer, RFC 6901
std::string brief_json(const Json& value);       // its text, shortened for messages

}  // namespace thimble
