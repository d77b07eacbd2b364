#include "calls/schema_inspector.h"

#include <fmt/format.h>

#include <set>
#include <unordered_map>

#include "calls/validate.h"
#include "core/error.h"

namespace thimble {
namespace {

// What a keyword's value must look like.
enum class Shape {
  kAnything,
  kSchema,
  kSchemas,
  kSchemaMap,
  kPatternMap,
  kNumber,
  kPositive,
  kCount,
  kPattern,
  kBoolean,
  kNames,
  kNamesMap,
  kTypes,
  kList,
  kReference,
  kText,
  kNotSupported
};

const std::unordered_map<std::string_view, Shape>& keywords() {
  static const std::unordered_map<std::string_view, Shape> table = {{"type", Shape::kTypes},
                                                                    {"enum", Shape::kList},
                                                                    {"const", Shape::kAnything},
                                                                    {"multipleOf", Shape::kPositive},
                                                                    {"minimum", Shape::kNumber},
                                                                    {"maximum", Shape::kNumber},
                                                                    {"exclusiveMinimum", Shape::kNumber},
                                                                    {"exclusiveMaximum", Shape::kNumber},
                                                                    {"minLength", Shape::kCount},
                                                                    {"maxLength", Shape::kCount},
                                                                    {"pattern", Shape::kPattern},
                                                                    {"minItems", Shape::kCount},
                                                                    {"maxItems", Shape::kCount},
                                                                    {"uniqueItems", Shape::kBoolean},
                                                                    {"prefixItems", Shape::kSchemas},
                                                                    {"items", Shape::kSchema},
                                                                    {"contains", Shape::kSchema},
                                                                    {"minContains", Shape::kCount},
                                                                    {"maxContains", Shape::kCount},
                                                                    {"minProperties", Shape::kCount},
                                                                    {"maxProperties", Shape::kCount},
                                                                    {"required", Shape::kNames},
                                                                    {"properties", Shape::kSchemaMap},
                                                                    {"patternProperties", Shape::kPatternMap},
                                                                    {"additionalProperties", Shape::kSchema},
                                                                    {"propertyNames", Shape::kSchema},
                                                                    {"dependentRequired", Shape::kNamesMap},
                                                                    {"dependentSchemas", Shape::kSchemaMap},
                                                                    {"allOf", Shape::kSchemas},
                                                                    {"anyOf", Shape::kSchemas},
                                                                    {"oneOf", Shape::kSchemas},
                                                                    {"not", Shape::kSchema},
                                                                    {"if", Shape::kSchema},
                                                                    {"then", Shape::kSchema},
                                                                    {"else", Shape::kSchema},
                                                                    {"$ref", Shape::kReference},
                                                                    {"$defs", Shape::kSchemaMap},
                                                                    {"definitions", Shape::kSchemaMap},
                                                                    {"$schema", Shape::kText},
                                                                    {"$id", Shape::kText},
                                                                    {"$comment", Shape::kText},
                                                                    {"title", Shape::kText},
                                                                    {"description", Shape::kText},
                                                                    {"default", Shape::kAnything},
                                                                    {"examples", Shape::kAnything},
                                                                    {"deprecated", Shape::kBoolean},
                                                                    {"readOnly", Shape::kBoolean},
                                                                    {"writeOnly", Shape::kBoolean},
                                                                    {"format", Shape::kText},
                                                                    {"contentEncoding", Shape::kText},
                                                                    {"contentMediaType", Shape::kText},
                                                                    {"contentSchema", Shape::kSchema},
                                                                    {"$anchor", Shape::kNotSupported},
                                                                    {"$dynamicRef", Shape::kNotSupported},
                                                                    {"$dynamicAnchor", Shape::kNotSupported},
                                                                    {"$vocabulary", Shape::kNotSupported},
                                                                    {"unevaluatedItems", Shape::kNotSupported},
                                                                    {"unevaluatedProperties", Shape::kNotSupported}};
  return table;
}

const std::set<std::string_view>& type_names() {
  static const std::set<std::string_view> names = {"string", "integer", "number", "boolean", "null", "object", "array"};
  return names;
}

struct Inspector {
  const Json& document;
  std::string where;
  Patterns patterns;
  std::set<const Json*> seen;

  // At construction: every keyword is known and well formed.
  void inspect(const Json& s, const std::string& place, bool at_root) {
    if (s.is_boolean() || !seen.insert(&s).second) return;
    if (!s.is_object()) throw Error(fmt::format("{}: {}: a schema must be an object, true or false.", where, place));
    for (const auto& [key, value] : s.items()) inspect_keyword(key, value, place, at_root);
  }

  [[noreturn]] void malformed(const std::string& place, const std::string& key, const char* must) const {
    throw Error(fmt::format("{}: {}: \"{}\" must be {}.", where, place, key, must));
  }

  void inspect_names(const Json& names, const std::string& place, const std::string& key) const {
    if (!names.is_array()) malformed(place, key, "a list of names");
    for (const Json& name : names) {
      if (!name.is_string()) malformed(place, key, "a list of names");
    }
  }

  void inspect_keyword(const std::string& key, const Json& value, const std::string& place, bool at_root) {
    const auto known = keywords().find(key);
    const std::string below = fmt::format("{}/{}", place, pointer_part(key));
    if (known == keywords().end()) {
      const char* hint = key == "nullable" ? "; write \"type\": [..., \"null\"] instead" : "";
      throw Error(fmt::format("{}: {}: unknown schema keyword \"{}\"{}.", where, place, key, hint));
    }
    switch (known->second) {
      case Shape::kNotSupported:
        throw Error(fmt::format("{}: {}: the schema keyword \"{}\" is not supported.", where, place, key));
      case Shape::kSchema:
        inspect(value, below, false);
        break;
      case Shape::kSchemas:
        if (!value.is_array() || value.empty()) malformed(place, key, "a list of schemas");
        for (size_t i = 0; i < value.size(); ++i) inspect(value[i], fmt::format("{}/{}", below, i), false);
        break;
      case Shape::kPatternMap:
      case Shape::kSchemaMap:
        if (!value.is_object()) malformed(place, key, "an object of schemas");
        for (const auto& [name, s] : value.items()) {
          if (known->second == Shape::kPatternMap) add_pattern(name, below);
          inspect(s, below + "/" + pointer_part(name), false);
        }
        break;
      case Shape::kPositive:
        if (!value.is_number() || value.get<double>() <= 0) malformed(place, key, "a number above 0");
        break;
      case Shape::kNumber:
        if (!value.is_number()) malformed(place, key, "a number");
        break;
      case Shape::kCount:
        if (!value.is_number() || !is_whole(value) || value.get<double>() < 0 || value.get<double>() > 1e15) {
          malformed(place, key, "a whole number, 0 or more");
        }
        break;
      case Shape::kPattern:
        if (!value.is_string()) malformed(place, key, "a regular expression");
        add_pattern(value.get<std::string>(), below);
        break;
      case Shape::kBoolean:
        if (!value.is_boolean()) malformed(place, key, "true or false");
        break;
      case Shape::kNames:
        inspect_names(value, place, key);
        break;
      case Shape::kNamesMap:
        if (!value.is_object()) malformed(place, key, "an object of lists of names");
        for (const auto& [name, names] : value.items()) inspect_names(names, below, name);
        break;
      case Shape::kTypes: {
        const Json list = value.is_array() ? value : Json::array({value});
        if (list.empty()) malformed(place, key, "a type or a list of types");
        for (const Json& type : list) {
          if (!type.is_string() || !type_names().contains(type.get_ref<const std::string&>())) {
            malformed(place, key, "string, integer, number, boolean, null, object or array, or a list of them");
          }
        }
        break;
      }
      case Shape::kList:
        if (!value.is_array()) malformed(place, key, "a list");
        break;
      case Shape::kReference: {
        if (!value.is_string()) malformed(place, key, "a reference");
        const std::string& reference = value.get_ref<const std::string&>();
        inspect(resolve_reference(document, reference, where + ": " + place), reference, reference == "#");
        break;
      }
      case Shape::kText:
        if (!value.is_string()) malformed(place, key, "a string");
        if (key == "$schema" && value.get_ref<const std::string&>().find("//json-schema.org/") == std::string::npos) {
          throw Error(fmt::format("{}: {}: \"$schema\" {} is not supported.", where, place, brief_json(value)));
        }
        if (key == "$id" && !at_root) {
          throw Error(fmt::format("{}: {}: \"$id\" below the root is not supported.", where, place));
        }
        break;
      case Shape::kAnything:
        break;
    }
  }

  void add_pattern(const std::string& text, const std::string& place) {
    if (!patterns.contains(text)) patterns.emplace(text, Pattern(text, where + ": " + place));
  }
};

}  // namespace

Patterns inspect_schema(const Json& schema, const Json& document, std::string_view where) {
  Inspector inspector{document, std::string(where), {}, {}};
  inspector.inspect(schema, "#", true);
  return std::move(inspector.patterns);
}

std::string pointer_part(std::string_view key) {
  std::string out;
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

std::string brief_json(const Json& value) {
  std::string text = write_json(value);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace thimble
