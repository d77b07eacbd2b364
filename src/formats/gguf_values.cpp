#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "formats/gguf.h"

namespace thimble {
namespace {

[[noreturn]] void wrong_type(const GgufFile& file, std::string_view key, const char* wanted) {
  throw Error(fmt::format("{}: metadata '{}' is not {}; the file is damaged or was written by a broken converter",
                          file.place, key, wanted));
}

}  // namespace

const GgufValue* GgufFile::find(std::string_view key) const {
  for (const GgufEntry& entry : metadata)
    if (entry.key == key) return &entry.value;
  return nullptr;
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> std::optional<int64_t> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (std::is_unsigned_v<T> && static_cast<uint64_t>(v) > uint64_t{std::numeric_limits<int64_t>::max()})
            wrong_type(*this, key, "an integer below 2^63");
          return static_cast<int64_t>(v);
        } else {
          wrong_type(*this, key, "an integer");
        }
      },
      *value);
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&](const auto& v) -> std::optional<double> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
          return static_cast<double>(v);
        } else {
          wrong_type(*this, key, "a number");
        }
      },
      *value);
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const bool* b = std::get_if<bool>(value)) return *b;
  wrong_type(*this, key, "a boolean");
}

std::optional<std::string> GgufFile::string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* s = std::get_if<std::string>(value)) return *s;
  wrong_type(*this, key, "a string");
}

const std::vector<std::string>* GgufFile::strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return nullptr;
  if (const auto* array = std::get_if<GgufArray>(value))
    if (const auto* list = std::get_if<std::vector<std::string>>(&array->items)) return list;
  wrong_type(*this, key, "an array of strings");
}

std::vector<std::string> GgufFile::take_strings(std::string_view key) {
  if (strings(key) == nullptr) return {};
  auto& value = std::ranges::find(metadata, key, &GgufEntry::key)->value;
  return std::move(std::get<std::vector<std::string>>(std::get<GgufArray>(value).items));
}

}  // namespace thimble
