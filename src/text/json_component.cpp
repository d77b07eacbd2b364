#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "text/tokenizer_components.h"
#include "text/utf8.h"

namespace thimble {

namespace dom = simdjson::dom;

JsonComponent::JsonComponent(dom::element value, std::string place) : place_(std::move(place)) {
  if (value.get(object_) != simdjson::SUCCESS) refuse("must be an object");
}

void JsonComponent::refuse(const std::string& what) const {
  throw Error(place_ == "tokenizer.json" ? fmt::format("tokenizer.json: {}", what)
                                         : fmt::format("tokenizer.json: {}: {}", place_, what));
}

bool JsonComponent::has(std::string_view key) const {
  dom::element value;
  return object_[key].get(value) == simdjson::SUCCESS && !value.is_null();
}

void JsonComponent::allow(std::initializer_list<std::string_view> keys) const {
  for (const auto [key, value] : object_)
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      refuse(fmt::format("the field '{}' is unknown and could change the tokens; a newer Thimble may read it", key));
}

dom::element JsonComponent::get(std::string_view key) const {
  dom::element value;
  if (object_[key].get(value) != simdjson::SUCCESS || value.is_null()) refuse(fmt::format("'{}' is missing", key));
  return value;
}

std::string JsonComponent::text(std::string_view key) const {
  std::string_view value;
  if (get(key).get(value) != simdjson::SUCCESS) refuse(fmt::format("'{}' must be text", key));
  return std::string(value);
}

std::string JsonComponent::text_or(std::string_view key, std::string_view otherwise) const {
  return has(key) ? text(key) : std::string(otherwise);
}

std::string JsonComponent::character(std::string_view key) const {
  const std::string value = text(key);
  size_t at = 0;
  if (!value.empty()) decode_utf8(value, at);
  if (value.empty() || at != value.size()) refuse(fmt::format("'{}' must be one character", key));
  return value;
}

bool JsonComponent::flag(std::string_view key) const {
  bool value = false;
  if (get(key).get(value) != simdjson::SUCCESS) refuse(fmt::format("'{}' must be true or false", key));
  return value;
}

bool JsonComponent::flag(std::string_view key, bool otherwise) const { return has(key) ? flag(key) : otherwise; }

int64_t JsonComponent::integer(std::string_view key) const {
  int64_t value = 0;
  if (get(key).get(value) != simdjson::SUCCESS) refuse(fmt::format("'{}' must be an integer", key));
  return value;
}

double JsonComponent::number(std::string_view key) const {
  double value = 0;
  if (get(key).get(value) != simdjson::SUCCESS) refuse(fmt::format("'{}' must be a number", key));
  return value;
}

dom::array JsonComponent::array(std::string_view key) const {
  dom::array value;
  if (get(key).get(value) != simdjson::SUCCESS) refuse(fmt::format("'{}' must be a list", key));
  return value;
}

dom::object JsonComponent::object(std::string_view key) const {
  dom::object value;
  if (get(key).get(value) != simdjson::SUCCESS) refuse(fmt::format("'{}' must be an object", key));
  return value;
}

JsonComponent JsonComponent::component(std::string_view key) const {
  return {get(key), place_ == "tokenizer.json" ? std::string(key) : fmt::format("{}: {}", place_, key)};
}

Pattern JsonComponent::pattern(std::string_view key) const {
  const JsonComponent value(get(key), fmt::format("{}: {}", place_, key));
  value.allow({"String", "Regex"});
  if (value.has("String") == value.has("Regex")) value.refuse("must be either a String or a Regex");
  return value.has("String") ? Pattern::literal(value.text("String")) : Pattern::regex(value.text("Regex"));
}

}  // namespace thimble
