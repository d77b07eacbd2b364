#include "calls/schema_merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>

#include "calls/validate.h"
#include "core/error.h"

namespace thimble {
namespace {

constexpr size_t kMostAlternatives = 256;

Json common_types(const Json& a, const Json& b) {
  const auto list = [](const Json& types) { return types.is_array() ? types : Json::array({types}); };
  const auto has = [](const Json& types, const char* name) {
    return std::find(types.begin(), types.end(), name) != types.end();
  };
  const Json left = list(a), right = list(b);
  Json both = Json::array();
  for (const Json& type : left) {
    if (std::find(right.begin(), right.end(), type) != right.end() || (type == "integer" && has(right, "number")))
      both.push_back(type);
    if (type == "number" && has(right, "integer") && !has(left, "integer")) both.push_back("integer");
  }
  return both.size() == 1 ? both[0] : both;
}

class Merger {
 public:
  explicit Merger(std::string_view where) : where_(where) {}

  Json merge(const Json& a, const Json& b, int depth = 0) const {
    if (depth > 60) throw Error(fmt::format("{}: schemas are nested too deep to be combined.", where_));
    if (a.is_boolean()) return a.get<bool>() ? b : a;
    if (b.is_boolean()) return b.get<bool>() ? a : b;
    Json result = a;
    for (const auto& [key, value] : b.items()) {
      if (key == "properties" || key == "additionalProperties" || key == "items" || key == "prefixItems") continue;
      if (!result.contains(key)) {
        result[key] = value;
      } else {
        result[key] = combine(key, result[key], value, depth);
      }
    }
    merge_properties(a, b, result, depth);
    merge_items(a, b, result, depth);
    return result;
  }

 private:
  Json combine(const std::string& key, const Json& a, const Json& b, int depth) const {
    if (same_json(a, b) || is_annotation(key)) return a;
    if (key == "type") return common_types(a, b);
    if (key == "minimum" || key == "exclusiveMinimum" || key.starts_with("min"))
      return compare_numbers(a, b) < 0 ? b : a;
    if (key == "maximum" || key == "exclusiveMaximum" || key.starts_with("max"))
      return compare_numbers(a, b) > 0 ? b : a;
    if (key == "uniqueItems") return a.get<bool>() || b.get<bool>();
    if (key == "enum") {
      Json both = Json::array();
      for (const Json& value : a) {
        if (std::any_of(b.begin(), b.end(), [&](const Json& other) { return same_json(value, other); }))
          both.push_back(value);
      }
      return both;
    }
    if (key == "required") {
      Json both = a;
      for (const Json& name : b) {
        if (std::find(a.begin(), a.end(), name) == a.end()) both.push_back(name);
      }
      return both;
    }
    if (key == "allOf") {
      Json both = a;
      for (const Json& schema : b) both.push_back(schema);
      return both;
    }
    if (key == "anyOf") {
      if (a.size() * b.size() > kMostAlternatives)
        throw Error(fmt::format("{}: anyOf has too many combinations.", where_));
      Json both = Json::array();
      for (const Json& left : a) {
        for (const Json& right : b) both.push_back(merge(left, right, depth + 1));
      }
      return both;
    }
    throw Error(
        fmt::format("{}: two different \"{}\" at one place can't be combined to constrain answers.", where_, key));
  }

  // A property of one side that the other does not name is under the other's additionalProperties.
  void merge_properties(const Json& a, const Json& b, Json& result, int depth) const {
    const Json none = Json::object();
    const Json& left = a.contains("properties") ? a["properties"] : none;
    const Json& right = b.contains("properties") ? b["properties"] : none;
    const Json anything = true;
    const auto others = [&](const Json& s) -> const Json& {
      return s.contains("additionalProperties") ? s["additionalProperties"] : anything;
    };
    if (a.contains("properties") || b.contains("properties")) {
      Json properties = Json::object();
      for (const auto& [name, schema] : left.items()) {
        properties[name] = merge(schema, right.contains(name) ? right[name] : others(b), depth + 1);
      }
      for (const auto& [name, schema] : right.items()) {
        if (!left.contains(name)) properties[name] = merge(others(a), schema, depth + 1);
      }
      result["properties"] = std::move(properties);
    }
    if (a.contains("additionalProperties") || b.contains("additionalProperties")) {
      result["additionalProperties"] = merge(others(a), others(b), depth + 1);
    }
  }

  void merge_items(const Json& a, const Json& b, Json& result, int depth) const {
    const Json none = Json::array();
    const Json anything = true;
    const Json& left = a.contains("prefixItems") ? a["prefixItems"] : none;
    const Json& right = b.contains("prefixItems") ? b["prefixItems"] : none;
    const Json& left_rest = a.contains("items") ? a["items"] : anything;
    const Json& right_rest = b.contains("items") ? b["items"] : anything;
    Json prefix = Json::array();
    for (size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
      prefix.push_back(
          merge(i < left.size() ? left[i] : left_rest, i < right.size() ? right[i] : right_rest, depth + 1));
    }
    if (!prefix.empty()) result["prefixItems"] = std::move(prefix);
    if (a.contains("items") || b.contains("items")) result["items"] = merge(left_rest, right_rest, depth + 1);
  }

  std::string_view where_;
};

}  // namespace

Json merge_schemas(const Json& a, const Json& b, std::string_view where) {
  // Two references can't stand side by side: each becomes a part of an allOf.
  if (a.is_object() && b.is_object() && a.contains("$ref") && b.contains("$ref") && a["$ref"] != b["$ref"]) {
    Json left = a, right = b;
    Json parts = Json::array({{{"$ref", left["$ref"]}}, {{"$ref", right["$ref"]}}});
    left.erase("$ref");
    right.erase("$ref");
    Json result = Merger(where).merge(left, right);
    if (result.is_object()) result["allOf"] = std::move(parts);
    return result;
  }
  return Merger(where).merge(a, b);
}

}  // namespace thimble
