#include "calls/tool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <unordered_map>

#include "core/error.h"

namespace thimble {
namespace {

void refuse_unknown_keys(const Json& object, std::initializer_list<std::string_view> known, const std::string& where) {
  for (const auto& [key, value] : object.get_ref<const Json::object_t&>()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw Error(fmt::format("{}: unknown key \"{}\"; known are {}.", where, key, fmt::join(known, ", ")));
    }
  }
}

bool is_tool_name(std::string_view name) {
  if (name.empty() || name.size() > 128) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.' || c == ':' || c == '/';
  });
}

Tool tool_from_json(const Json& definition, const std::string& where) {
  if (!definition.is_object()) throw Error(where + ": a tool must be a JSON object.");
  const Json* function = &definition;
  if (definition.contains("function")) {
    refuse_unknown_keys(definition, {"type", "function"}, where);
    if (definition.contains("type") && definition["type"] != "function") {
      throw Error(fmt::format("{}: \"type\" must be \"function\", not {}.", where, definition["type"].dump()));
    }
    function = &definition["function"];
    if (!function->is_object()) throw Error(where + ": \"function\" must be a JSON object.");
  }
  refuse_unknown_keys(*function, {"name", "description", "parameters", "strict"}, where);
  const auto text = [&](const char* key, bool required) -> std::string {
    const auto found = function->find(key);
    if (found == function->end()) {
      if (required) throw Error(fmt::format("{}: \"{}\" is missing.", where, key));
      return "";
    }
    if (!found->is_string()) throw Error(fmt::format("{}: \"{}\" must be a string.", where, key));
    return found->get<std::string>();
  };
  Tool tool;
  tool.name = text("name", true);
  if (!is_tool_name(tool.name)) {
    throw Error(fmt::format("{}: {} is not a tool name: use 1 to 128 letters, digits and _ - . : /", where,
                            write_json_string(tool.name)));
  }
  tool.description = text("description", false);
  if (function->contains("strict") && !(*function)["strict"].is_boolean()) {
    throw Error(where + ": \"strict\" must be true or false.");
  }
  tool.parameters = function->value("parameters", Json::object());
  if (!tool.parameters.is_object()) throw Error(where + ": \"parameters\" must be a JSON Schema object.");
  if (tool.parameters.empty()) {
    tool.parameters = {{"type", "object"}, {"properties", Json::object()}};
  } else if (!tool.parameters.contains("type") || tool.parameters["type"] != "object") {
    throw Error(where + ": \"parameters\" must be a schema of \"type\": \"object\".");
  }
  return tool;
}

// Where the schema names the properties: itself, or behind one local reference.
const Json& resolved(const Json& schema, const Json& root, int depth = 0) {
  if (depth > 16 || !schema.is_object() || !schema.contains("$ref") || !schema["$ref"].is_string()) return schema;
  const std::string reference = schema["$ref"];
  if (!reference.starts_with("#/")) return schema;
  try {
    return resolved(root.at(Json::json_pointer(reference.substr(1))), root, depth + 1);
  } catch (const nlohmann::json::exception&) {
    return schema;
  }
}

Json arrange(const Json& value, const Json& unresolved, const Json& root, int depth) {
  const Json& schema = resolved(unresolved, root);
  if (!schema.is_object() || depth > 100) return value;
  if (value.is_number_float() && schema.contains("type") && schema["type"] == "integer" && is_whole(value) &&
      std::fabs(value.get<double>()) < 0x1p53) {
    return static_cast<int64_t>(value.get<double>());
  }
  if (value.is_array() && schema.contains("items")) {
    Json items = Json::array();
    for (const Json& item : value) items.push_back(arrange(item, schema["items"], root, depth + 1));
    return items;
  }
  if (!value.is_object() || !schema.contains("properties") || !schema["properties"].is_object()) return value;
  const Json& properties = schema["properties"];
  Json result = Json::object();
  for (const auto& [key, property] : properties.items()) {
    if (value.contains(key)) result[key] = arrange(value[key], property, root, depth + 1);
  }
  for (const auto& [key, member] : value.items()) {
    if (!properties.contains(key)) result[key] = member;
  }
  return result;
}

}  // namespace

std::vector<Tool> tools_from_json(const Json& list, std::string_view where) {
  if (!list.is_array()) throw Error(fmt::format("{}: tools must be a JSON list of tool definitions.", where));
  std::vector<Tool> tools;
  std::unordered_map<std::string, size_t> seen;
  for (const Json& definition : list) {
    const size_t number = tools.size() + 1;
    tools.push_back(tool_from_json(definition, fmt::format("{}: tool {}", where, number)));
    const auto [first, is_new] = seen.emplace(tools.back().name, number);
    if (!is_new) {
      throw Error(fmt::format("{}: tool {} has the name of tool {}, \"{}\"; names must differ.", where, number,
                              first->second, tools.back().name));
    }
  }
  return tools;
}

std::vector<Tool> parse_tools(std::string_view text, std::string_view where) {
  return tools_from_json(parse_json(text, where), where);
}

Json tool_to_json(const Tool& tool) {
  Json function = {{"name", tool.name}};
  if (!tool.description.empty()) function["description"] = tool.description;
  function["parameters"] = tool.parameters;
  return {{"type", "function"}, {"function", std::move(function)}};
}

Json tools_to_json(std::span<const Tool> tools) {
  Json list = Json::array();
  for (const Tool& tool : tools) list.push_back(tool_to_json(tool));
  return list;
}

std::string tools_to_text(std::span<const Tool> tools) {
  std::string text;
  for (const Tool& tool : tools) {
    if (!text.empty()) text += '\n';
    text += write_json(tool_to_json(tool));
  }
  return text;
}

const Tool* find_tool(std::span<const Tool> tools, std::string_view name) {
  const auto found = std::find_if(tools.begin(), tools.end(), [&](const Tool& tool) { return tool.name == name; });
  return found == tools.end() ? nullptr : &*found;
}

std::vector<std::string> required_arguments(const Tool& tool) {
  std::vector<std::string> names;
  const auto required = tool.parameters.find("required");
  if (required == tool.parameters.end() || !required->is_array()) return names;
  for (const Json& name : *required)
    if (name.is_string()) names.push_back(name.get<std::string>());
  return names;
}

Json arrange_arguments(const Json& arguments, const Json& schema) { return arrange(arguments, schema, schema, 0); }

std::vector<Call> arrange_calls(std::span<const Call> calls, std::span<const Tool> tools) {
  std::vector<Call> arranged(calls.begin(), calls.end());
  for (Call& call : arranged) {
    if (const Tool* tool = find_tool(tools, call.name)) {
      call.arguments = arrange_arguments(call.arguments, tool->parameters);
    }
  }
  return arranged;
}

}  // namespace thimble
