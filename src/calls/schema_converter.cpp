#include "calls/schema_converter.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "calls/schema_merge.h"
#include "calls/validate.h"
#include "core/error.h"

namespace thimble {
namespace {

constexpr int kMostDepth = 64;
constexpr size_t kMostGrammarBytes = 4 << 20;

Json without(const Json& schema, std::string_view key) {
  Json rest = schema;
  rest.erase(std::string(key));
  return rest;
}

Json without_annotations(const Json& schema) {
  Json rest = Json::object();
  for (const auto& [key, value] : schema.items()) {
    if (!is_annotation(key)) rest[key] = value;
  }
  return rest;
}

}  // namespace

std::string JsonRules::once(const char* name, const std::function<std::string()>& body) {
  if (const auto found = names_.find(name); found != names_.end()) return found->second;
  const std::string rule = grammar_.reserve(name);
  names_[name] = rule;  // before the body, which may refer back
  grammar_.define(rule, body());
  return rule;
}

// What write_json writes, without surrogates, which are not UTF-8: control characters as their short escape where JSON
// has one, else \u00XX.
std::string JsonRules::any_char() {
  return once("char", [] {
    return std::string(
        R"([\x20-\x21\x23-\x5b\x5d-\ud7ff\ue000-\U0010ffff] | "\\" ["\\nrtfb] | "\\u000" [0-7bef] | "\\u001" [0-9a-f])");
  });
}
std::string JsonRules::string() {
  return once("string", [&] { return fmt::format(R"("\"" {}* "\"")", any_char()); });
}
std::string JsonRules::integer() {
  return once("integer", [] { return std::string(R"("0" | "-"? [1-9] [0-9]{0,17})"); });
}
std::string JsonRules::number() {
  return once("number", [] {
    return std::string(R"("-"? ("0" | [1-9] [0-9]{0,17}) ("." [0-9]{1,24})? ("e" [-+] [0-9] [0-9])?)");
  });
}
std::string JsonRules::boolean() {
  return once("boolean", [] { return std::string(R"("true" | "false")"); });
}
std::string JsonRules::value() {
  return once("value", [&] {
    return fmt::format(R"({} | {} | {} | {} | {} | "null")", object(), array(), string(), number(), boolean());
  });
}
std::string JsonRules::object() {
  return once("object", [&] {
    const std::string member = fmt::format(R"({} ": " {})", string(), value());
    return fmt::format(R"("{{" ({} (", " {})*)? "}}")", member, member);
  });
}
std::string JsonRules::array() {
  return once("array", [&] { return fmt::format(R"("[" ({} (", " {})*)? "]")", value(), value()); });
}

SchemaConverter::SchemaConverter(JsonRules& rules, const Json& document, std::string where)
    : rules_(rules), grammar_(rules.grammar()), document_(document), where_(std::move(where)) {
  SchemaValidator(document, where_);  // known keywords, well formed
}

void SchemaConverter::fail(const std::string& place, const std::string& what) const {
  throw Error(fmt::format("{}: {}: {}.", where_, place, what));
}

SchemaConverter::Expression SchemaConverter::convert(const Json& unresolved, const std::string& place, int depth) {
  if (depth > kMostDepth) fail(place, "the schema is nested too deep or refers to itself without end");
  if (grammar_.bytes() > kMostGrammarBytes) fail(place, "the schema is too large to constrain answers");
  if (unresolved.is_boolean()) return unresolved.get<bool>() ? Expression(rules_.value()) : std::nullopt;
  Json schema = without_annotations(unresolved);
  if (schema.empty()) return rules_.value();
  if (schema.contains("enum") || schema.contains("const")) return convert_listed(schema, place);

  if (schema.contains("oneOf")) {  // its exclusivity is left to validation
    Json rest = without(schema, "oneOf");
    Json alternatives = {{"anyOf", schema["oneOf"]}};
    return convert(merge_schemas(rest, alternatives, where_ + ": " + place), place, depth + 1);
  }
  if (schema.contains("$ref")) {
    const std::string reference = schema["$ref"];
    if (schema.size() == 1) return convert_reference(reference, place, depth);
    Json merged = merge_schemas(without_annotations(resolve_reference(document_, reference, where_)),
                                without(schema, "$ref"), where_ + ": " + place);
    return convert(merged, place, depth + 1);
  }
  if (schema.contains("allOf")) {
    Json merged = without(schema, "allOf");
    for (const Json& part : schema["allOf"]) {
      Json sub = part.is_boolean() ? part : without_annotations(part);
      for (int i = 0; sub.is_object() && sub.contains("$ref") && i < kMostDepth; ++i) {
        const Json& target = resolve_reference(document_, sub["$ref"].get<std::string>(), where_);
        sub = merge_schemas(target.is_boolean() ? target : without_annotations(target), without(sub, "$ref"),
                            where_ + ": " + place);
      }
      if (sub.is_object() && sub.contains("oneOf")) {
        sub = merge_schemas(without(sub, "oneOf"), Json{{"anyOf", sub["oneOf"]}}, where_ + ": " + place);
      }
      merged = merge_schemas(merged, sub, where_ + ": " + place);
    }
    return convert(merged, place, depth + 1);
  }
  std::vector<std::string> alternatives;
  if (schema.contains("anyOf")) {
    const Json rest = without(schema, "anyOf");
    for (size_t i = 0; i < schema["anyOf"].size(); ++i) {
      const Json& part = schema["anyOf"][i];
      const Json merged = rest.empty() ? part : merge_schemas(rest, part, where_ + ": " + place);
      if (auto e = convert(merged, fmt::format("{}/anyOf/{}", place, i), depth + 1))
        alternatives.push_back(std::move(*e));
    }
  } else {
    refuse_unenforced(schema, place);
    for (const std::string& type : types_of(schema, place)) {
      if (auto e = convert_type(type, schema, place, depth)) alternatives.push_back(std::move(*e));
    }
  }
  if (alternatives.empty()) return std::nullopt;
  if (alternatives.size() == 1) return alternatives.front();
  return grammar_.add("choice", fmt::format("{}", fmt::join(alternatives, " | ")));
}

SchemaConverter::Expression SchemaConverter::convert_reference(const std::string& reference, const std::string& place,
                                                               int depth) {
  const Json& target = resolve_reference(document_, reference, where_ + ": " + place);
  if (const auto found = references_.find(reference); found != references_.end()) return found->second;
  const std::string rule = grammar_.reserve("ref");
  references_[reference] = rule;
  if (target.is_object() && target.contains("$ref") && without_annotations(target).size() == 1 &&
      target["$ref"].get<std::string>() == reference) {
    fail(place, fmt::format("the reference \"{}\" leads back to itself", reference));
  }
  const Expression body = convert(target, reference, depth + 1);
  if (!body) fail(place, fmt::format("no value is valid for \"{}\"", reference));
  grammar_.define(rule, *body);
  return rule;
}

// enum and const: those of their values that the whole schema accepts, whatever its keywords.
SchemaConverter::Expression SchemaConverter::convert_listed(const Json& schema, const std::string& place) {
  const SchemaValidator validator(schema, document_, where_ + ": " + place);
  const Json candidates = schema.contains("const") ? Json::array({schema["const"]}) : schema["enum"];
  std::set<std::string> texts;
  std::string body;
  for (const Json& value : candidates) {
    if (!validator.accepts(value)) continue;
    const std::string text = write_json(value);
    if (!texts.insert(text).second) continue;
    body.append(body.empty() ? "" : " | ").append(quote_literal(text));
  }
  if (texts.empty()) return std::nullopt;
  return texts.size() == 1 ? body : grammar_.add("enum", body);
}

std::vector<std::string> SchemaConverter::types_of(const Json& schema, const std::string& place) const {
  std::vector<std::string> types;
  if (schema.contains("type")) {
    const Json list = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    for (const Json& type : list) {
      if (type == "integer" && std::find(list.begin(), list.end(), "number") != list.end()) continue;
      types.push_back(type);
    }
    return types;
  }
  // Without a type the keywords' own one, where they agree on it.
  std::set<std::string> implied;
  for (const auto& [key, value] : schema.items()) {
    if (key == "minLength" || key == "maxLength" || key == "pattern") {
      implied.insert("string");
    } else if (key == "items" || key == "prefixItems" || key == "minItems" || key == "maxItems" ||
               key == "uniqueItems") {
      implied.insert("array");
    } else if (key == "properties" || key == "required" || key == "additionalProperties" ||
               key.ends_with("Properties")) {
      implied.insert("object");
    } else {
      implied.insert("number");
    }
  }
  if (implied.size() != 1) fail(place, "\"type\" is missing beside keywords of different types");
  return {*implied.begin()};
}

SchemaConverter::Expression SchemaConverter::convert_type(const std::string& type, const Json& schema,
                                                          const std::string& place, int depth) {
  if (type == "null") return "\"null\"";
  if (type == "boolean") return rules_.boolean();
  if (type == "string") return convert_string(schema, place);
  if (type == "integer" || type == "number") return convert_number(schema, type == "integer", place);
  if (type == "array") return convert_array(schema, place, depth);
  return convert_object(schema, place, depth);
}

// Keywords that validation knows but a grammar can't hold to.
void SchemaConverter::refuse_unenforced(const Json& schema, const std::string& place) const {
  for (const char* key : {"not", "if", "then", "else", "contains", "minContains", "maxContains", "patternProperties",
                          "propertyNames", "dependentRequired", "dependentSchemas"}) {
    if (schema.contains(key)) {
      fail(
          place,
          fmt::format(
              "the schema keyword \"{}\" can't be used to constrain answers; leave it out or put it beside an \"enum\"",
              key));
    }
  }
}

}  // namespace thimble
