#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calls/call.h"
#include "calls/json.h"

namespace thimble {

// One tool as OpenAI's API defines it; `parameters` is the JSON Schema of its arguments (type object).
struct Tool {
  std::string name;
  std::string description;
  Json parameters;
};

// A list of tools: OpenAI's {"type": "function", "function": {...}} or the bare function objects. Throws Error with
// the place ("tools.json: tool 3: ...") for unknown keys, wrong types, duplicate names and schemas that are not of an
// object. `where` names the source. The schemas' keywords are checked by SchemaValidator and SchemaGrammar.
std::vector<Tool> tools_from_json(const Json& list, std::string_view where);
std::vector<Tool> parse_tools(std::string_view text, std::string_view where);

Json tool_to_json(const Tool& tool);                     // OpenAI's form
Json tools_to_json(std::span<const Tool> tools);         // the list of them
std::string tools_to_text(std::span<const Tool> tools);  // one JSON text a line, as prompts show them
const Tool* find_tool(std::span<const Tool> tools, std::string_view name);  // nullptr where there is none

// As the tool's schema lists them; whether it is well formed is the validator's to say.
std::vector<std::string> required_arguments(const Tool& tool);

// The arguments as they are written in training targets: properties in the schema's order (also in nested objects and
// arrays), unknown ones last as they came; a whole float where the schema says integer becomes an integer.
Json arrange_arguments(const Json& arguments, const Json& schema);
// The calls with arranged arguments; calls of unknown tools stay as they are.
std::vector<Call> arrange_calls(std::span<const Call> calls, std::span<const Tool> tools);

}  // namespace thimble
