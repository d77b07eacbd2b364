#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "calls/json.h"
#include "serve/api_error.h"

namespace thimble {

// Reads the fields of a JSON object from outside, each at most once by name, and refuses what nobody read. null is the
// same as absent, as in OpenAI's API. Everything throws ApiError 400 that names the field.
class Fields {
 public:
  // `path` names the object in messages ("messages[2]"); empty: the body itself. The object must outlive this.
  explicit Fields(const Json& object, std::string path = "");

  const Json* find(std::string_view name);  // nullptr where it is absent
  const Json& require(std::string_view name);

  std::optional<bool> boolean(std::string_view name);
  std::optional<int64_t> integer(std::string_view name, int64_t least, int64_t most);
  std::optional<double> number(std::string_view name, double least, double most);
  std::optional<std::string> text(std::string_view name);
  // One of a few words.
  std::optional<std::string> word(std::string_view name, std::initializer_list<std::string_view> known);
  const Json* array(std::string_view name);
  const Json* object(std::string_view name);

  void accept(std::initializer_list<std::string_view> names);  // without a meaning here
  void finish() const;                                         // refuses what is left

  std::string place(std::string_view name) const;  // "messages[2].content"

 private:
  const Json& object_;
  std::string path_;
  std::set<std::string, std::less<>> read_;
};

// The body of a request: an object. Throws ApiError 400 that says where it is malformed.
Json parse_body(std::string_view body);

}  // namespace thimble
