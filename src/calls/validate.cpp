#include "calls/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "calls/schema_inspector.h"
#include "core/error.h"

namespace thimble {
namespace {

bool has_type(const Json& value, std::string_view type) {
  if (type == "integer") return is_whole(value);
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  return type == "object" ? value.is_object() : value.is_array();
}

bool is_multiple(const Json& value, const Json& step) {
  if (value.is_number_integer() && step.is_number_integer() && !value.is_number_unsigned()) {
    return value.get<int64_t>() % step.get<int64_t>() == 0;
  }
  const double x = value.get<double>(), y = step.get<double>();
  const double quotient = x / y;
  if (!std::isfinite(quotient)) return std::fmod(x, y) == 0;
  return std::fabs(quotient - std::round(quotient)) <= 1e-9 * std::max(1.0, std::fabs(quotient)) * 1e-3;
}

class Checker {
 public:
  Checker(const Json& root, const Patterns& patterns, const std::string& where)
      : root_(root), patterns_(patterns), where_(where) {}

  void check(const Json& s, const Json& value, const std::string& place, std::vector<SchemaProblem>& problems) {
    if (s.is_boolean()) {
      if (!s.get<bool>()) problems.push_back({place, "is not allowed here"});
      return;
    }
    if (s.contains("$ref")) follow(s["$ref"], value, place, problems);
    check_any(s, value, place, problems);
    check_combined(s, value, place, problems);
    if (value.is_number()) check_number(s, value, place, problems);
    if (value.is_string()) check_string(s, value, place, problems);
    if (value.is_array()) check_array(s, value, place, problems);
    if (value.is_object()) check_object(s, value, place, problems);
  }

 private:
  using Problems = std::vector<SchemaProblem>;

  bool accepts(const Json& s, const Json& value, const std::string& place) {
    Problems problems;
    check(s, value, place, problems);
    return problems.empty();
  }

  void follow(const Json& reference, const Json& value, const std::string& place, Problems& problems) {
    const Json& target = resolve_reference(root_, reference.get_ref<const std::string&>(), where_);
    const auto step = std::make_pair(&target, &value);
    if (std::find(open_.begin(), open_.end(), step) != open_.end()) {
      throw Error(fmt::format("{}: the reference \"{}\" leads back to itself.", where_, reference.get<std::string>()));
    }
    open_.push_back(step);
    check(target, value, place, problems);
    open_.pop_back();
  }

  void check_any(const Json& s, const Json& value, const std::string& place, Problems& problems) {
    if (const auto type = s.find("type"); type != s.end()) {
      const bool fits = type->is_string() ? has_type(value, type->get_ref<const std::string&>())
                                          : std::any_of(type->begin(), type->end(), [&](const Json& t) {
                                              return has_type(value, t.get_ref<const std::string&>());
                                            });
      if (!fits)
        problems.push_back({place, fmt::format("{} must be of type {}", brief_json(value), write_json(*type))});
    }
    if (const auto list = s.find("enum"); list != s.end()) {
      if (std::none_of(list->begin(), list->end(), [&](const Json& v) { return same_json(v, value); })) {
        problems.push_back({place, fmt::format("{} must be one of {}", brief_json(value), write_json(*list))});
      }
    }
    if (const auto constant = s.find("const"); constant != s.end() && !same_json(*constant, value)) {
      problems.push_back({place, fmt::format("{} must be {}", brief_json(value), write_json(*constant))});
    }
  }

  void check_combined(const Json& s, const Json& value, const std::string& place, Problems& problems) {
    if (const auto all = s.find("allOf"); all != s.end()) {
      for (const Json& sub : *all) check(sub, value, place, problems);
    }
    if (const auto any = s.find("anyOf"); any != s.end()) {
      if (std::none_of(any->begin(), any->end(), [&](const Json& sub) { return accepts(sub, value, place); })) {
        problems.push_back({place, fmt::format("{} fits no alternative of anyOf", brief_json(value))});
      }
    }
    if (const auto one = s.find("oneOf"); one != s.end()) {
      const auto fitting =
          std::count_if(one->begin(), one->end(), [&](const Json& sub) { return accepts(sub, value, place); });
      if (fitting != 1) {
        problems.push_back(
            {place, fmt::format("{} fits {} alternatives of oneOf instead of one", brief_json(value), fitting)});
      }
    }
    if (const auto no = s.find("not"); no != s.end() && accepts(*no, value, place)) {
      problems.push_back({place, fmt::format("{} fits what \"not\" forbids", brief_json(value))});
    }
    if (const auto condition = s.find("if"); condition != s.end()) {
      const auto branch = s.find(accepts(*condition, value, place) ? "then" : "else");
      if (branch != s.end()) check(*branch, value, place, problems);
    }
  }

  void check_number(const Json& s, const Json& value, const std::string& place, Problems& problems) {
    const auto bound = [&](const char* key, auto fits, const char* words) {
      const auto limit = s.find(key);
      if (limit != s.end() && !fits(compare_numbers(value, *limit))) {
        problems.push_back({place, fmt::format("{} must be {} {}", brief_json(value), words, brief_json(*limit))});
      }
    };
    bound("minimum", [](int c) { return c >= 0; }, "at least");
    bound("maximum", [](int c) { return c <= 0; }, "at most");
    bound("exclusiveMinimum", [](int c) { return c > 0; }, "above");
    bound("exclusiveMaximum", [](int c) { return c < 0; }, "below");
    if (const auto step = s.find("multipleOf"); step != s.end() && !is_multiple(value, *step)) {
      problems.push_back({place, fmt::format("{} must be a multiple of {}", brief_json(value), brief_json(*step))});
    }
  }

  // minX / maxX on a count of things.
  void check_count(const Json& s, const std::string& what, size_t count, const std::string& place, Problems& problems) {
    const auto low = s.find("min" + what), high = s.find("max" + what);
    if (low != s.end() && static_cast<double>(count) < low->get<double>()) {
      problems.push_back({place, fmt::format("has {}, fewer than min{} {}", count, what, brief_json(*low))});
    }
    if (high != s.end() && static_cast<double>(count) > high->get<double>()) {
      problems.push_back({place, fmt::format("has {}, more than max{} {}", count, what, brief_json(*high))});
    }
  }

  void check_string(const Json& s, const Json& value, const std::string& place, Problems& problems) {
    const auto& text = value.get_ref<const std::string&>();
    check_count(s, "Length", code_points(text), place, problems);
    if (const auto pattern = s.find("pattern"); pattern != s.end() && !matches(*pattern, text)) {
      problems.push_back(
          {place, fmt::format("{} must match the pattern {}", brief_json(value), pattern->get<std::string>())});
    }
  }

  bool matches(const std::string& pattern, const std::string& text) const {
    return patterns_.find(pattern)->second.found_in(text);
  }

  void check_array(const Json& s, const Json& value, const std::string& place, Problems& problems) {
    check_count(s, "Items", value.size(), place, problems);
    const auto prefix = s.find("prefixItems");
    const size_t fixed = prefix == s.end() ? 0 : prefix->size();
    const auto items = s.find("items");
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string below = fmt::format("{}/{}", place, i);
      if (i < fixed) {
        check((*prefix)[i], value[i], below, problems);
      } else if (items != s.end()) {
        check(*items, value[i], below, problems);
      }
    }
    if (const auto unique = s.find("uniqueItems"); unique != s.end() && unique->get<bool>()) {
      for (size_t i = 0; i < value.size(); ++i) {
        for (size_t j = 0; j < i; ++j) {
          if (same_json(value[i], value[j]))
            problems.push_back({place, fmt::format("items {} and {} are the same", j, i)});
        }
      }
    }
    if (const auto contains = s.find("contains"); contains != s.end()) {
      size_t count = 0;
      for (size_t i = 0; i < value.size(); ++i) count += accepts(*contains, value[i], fmt::format("{}/{}", place, i));
      if (!s.contains("minContains") && count == 0) problems.push_back({place, "no item fits \"contains\""});
      check_count(s, "Contains", count, place, problems);
    }
  }

  void check_object(const Json& s, const Json& value, const std::string& place, Problems& problems) {
    check_count(s, "Properties", value.size(), place, problems);
    const auto required = [&](const Json& names, const std::string& why) {
      for (const Json& name : names) {
        if (!value.contains(name.get_ref<const std::string&>())) {
          problems.push_back({place, fmt::format("\"{}\" is missing{}", name.get<std::string>(), why)});
        }
      }
    };
    if (const auto names = s.find("required"); names != s.end()) required(*names, "");
    if (const auto map = s.find("dependentRequired"); map != s.end()) {
      for (const auto& [key, names] : map->items()) {
        if (value.contains(key)) required(names, fmt::format(", which \"{}\" needs", key));
      }
    }
    if (const auto map = s.find("dependentSchemas"); map != s.end()) {
      for (const auto& [key, sub] : map->items()) {
        if (value.contains(key)) check(sub, value, place, problems);
      }
    }
    const auto properties = s.find("properties"), by_pattern = s.find("patternProperties");
    const auto others = s.find("additionalProperties"), names = s.find("propertyNames");
    for (const auto& [key, member] : value.items()) {
      const std::string below = place + "/" + pointer_part(key);
      bool named = false;
      if (properties != s.end() && properties->contains(key)) {
        named = true;
        check((*properties)[key], member, below, problems);
      }
      if (by_pattern != s.end()) {
        for (const auto& [pattern, sub] : by_pattern->items()) {
          if (!matches(pattern, key)) continue;
          named = true;
          check(sub, member, below, problems);
        }
      }
      if (!named && others != s.end()) {
        if (others->is_boolean() && !others->get<bool>()) {
          problems.push_back({below, "is not one of the known properties"});
        } else {
          check(*others, member, below, problems);
        }
      }
      if (names != s.end()) check(*names, Json(key), below, problems);
    }
  }

  const Json& root_;
  const Patterns& patterns_;
  const std::string& where_;
  std::vector<std::pair<const Json*, const Json*>> open_;  // references being followed, with the value
};

}  // namespace

struct SchemaValidator::Parts {
  Json schema;
  Json root;  // used where references mean another document than the schema itself
  bool own_root;
  std::string where;
  Patterns patterns;

  Parts(Json s, Json r, bool own, std::string_view w)
      : schema(std::move(s)),
        root(std::move(r)),
        own_root(own),
        where(w),
        patterns(inspect_schema(schema, document(), w)) {}
  const Json& document() const { return own_root ? schema : root; }
};

SchemaValidator::SchemaValidator(Json schema, std::string_view where)
    : parts_(std::make_unique<Parts>(std::move(schema), Json(), true, where)) {}

SchemaValidator::SchemaValidator(Json schema, const Json& root, std::string_view where)
    : parts_(std::make_unique<Parts>(std::move(schema), root, false, where)) {}

SchemaValidator::SchemaValidator(SchemaValidator&&) noexcept = default;
SchemaValidator& SchemaValidator::operator=(SchemaValidator&&) noexcept = default;
SchemaValidator::~SchemaValidator() = default;

std::vector<SchemaProblem> SchemaValidator::check(const Json& value) const {
  std::vector<SchemaProblem> problems;
  Checker(parts_->document(), parts_->patterns, parts_->where).check(parts_->schema, value, "", problems);
  return problems;
}

const Json& resolve_reference(const Json& root, const std::string& reference, std::string_view where) {
  if (reference != "#" && !reference.starts_with("#/")) {
    throw Error(
        fmt::format("{}: the reference \"{}\" leaves the document; only \"#/...\" is supported.", where, reference));
  }
  std::string pointer;  // without percent encoding
  for (size_t i = 1; i < reference.size(); ++i) {
    if (reference[i] == '%' && i + 2 < reference.size() &&
        std::isxdigit(static_cast<unsigned char>(reference[i + 1])) &&
        std::isxdigit(static_cast<unsigned char>(reference[i + 2]))) {
      pointer += static_cast<char>(std::stoi(reference.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      pointer += reference[i];
    }
  }
  try {
    return root.at(Json::json_pointer(pointer));
  } catch (const nlohmann::json::exception&) {
    throw Error(fmt::format("{}: the reference \"{}\" names nothing in the schema.", where, reference));
  }
}

bool is_annotation(std::string_view keyword) {
  static const std::set<std::string_view> names = {"$schema",          "$id",           "$comment", "title",
                                                   "description",      "default",       "examples", "deprecated",
                                                   "readOnly",         "writeOnly",     "format",   "contentEncoding",
                                                   "contentMediaType", "contentSchema", "$defs",    "definitions"};
  return names.contains(keyword);
}

size_t code_points(std::string_view utf8) {
  return static_cast<size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace thimble
