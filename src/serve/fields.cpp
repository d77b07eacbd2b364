#include "serve/fields.h"

#include <fmt/core.h>

#include <algorithm>

namespace thimble {
namespace {

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  throw ApiError(400, fmt::format("{}: {}", place, what), place);
}

}  // namespace

Fields::Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object_.is_object()) refuse(path_.empty() ? "body" : path_, "must be an object");
}

std::string Fields::place(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

const Json* Fields::find(std::string_view name) {
  read_.emplace(name);
  const auto found = object_.find(std::string(name));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const Json& Fields::require(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) refuse(place(name), "is required");
  return *value;
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse(place(name), "must be true or false");
  return value->get<bool>();
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t least, int64_t most) {
  const auto value = number(name, static_cast<double>(least), static_cast<double>(most));
  if (!value) return std::nullopt;
  if (*value != static_cast<double>(static_cast<int64_t>(*value))) refuse(place(name), "must be a whole number");
  return static_cast<int64_t>(*value);
}

std::optional<double> Fields::number(std::string_view name, double least, double most) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse(place(name), "must be a number");
  const double given = value->get<double>();
  if (!(given >= least && given <= most))
    refuse(place(name), fmt::format("is {}, but must be between {} and {}", value->dump(), least, most));
  return given;
}

std::optional<std::string> Fields::text(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(place(name), "must be a string");
  return value->get<std::string>();
}

std::optional<std::string> Fields::word(std::string_view name, std::initializer_list<std::string_view> known) {
  auto value = text(name);
  if (!value || std::find(known.begin(), known.end(), *value) != known.end()) return value;
  std::string list;
  for (const std::string_view w : known) list += fmt::format("{}{}", list.empty() ? "" : ", ", w);
  refuse(place(name), fmt::format("is '{}', but must be one of: {}", *value, list));
}

const Json* Fields::array(std::string_view name) {
  const Json* value = find(name);
  if (value != nullptr && !value->is_array()) refuse(place(name), "must be a list");
  return value;
}

const Json* Fields::object(std::string_view name) {
  const Json* value = find(name);
  if (value != nullptr && !value->is_object()) refuse(place(name), "must be an object");
  return value;
}

void Fields::accept(std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) read_.emplace(name);
}

void Fields::finish() const {
  for (const auto& [name, value] : object_.items())
    if (!read_.contains(name))
      refuse(place(name), "is not a field that is known here; leave it out (docs/serve.md lists the fields)");
}

Json parse_body(std::string_view body) {
  try {
    Json value = parse_json(body, "body");
    if (!value.is_object()) throw ApiError(400, "body: must be a JSON object");
    return value;
  } catch (const ApiError&) {
    throw;
  } catch (const Error& e) {
    throw ApiError(400, e.what());
  }
}

}  // namespace thimble
