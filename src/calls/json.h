#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace thimble {

// JSON that keeps the order of its keys: tools, schemas, arguments. Include this header in leaves only,
// it costs seconds a translation unit.
using Json = nlohmann::ordered_json;

// Strict parser: one value and nothing after it, valid UTF-8, no duplicate keys, no numbers beyond a double, at
// most 200 levels. Throws Error with `where`, the byte and the reason.
Json parse_json(std::string_view text, std::string_view where);

// The same for text whose brokenness is data (a model's answer): nothing on failure, with the reason.
std::optional<Json> try_parse_json(std::string_view text, std::string* reason);

// The one JSON text of a value: what Python's json.dumps(value, ensure_ascii=False) writes (", " and ": " between,
// shortest floats with ".0" and "1e-05"). Training targets, prompts and the decoding grammar agree on it to the byte.
std::string write_json(const Json& value);
std::string write_json_string(std::string_view text);  // one string, with quotes

// Equality of JSON Schema: numbers by value (1 == 1.0), objects without order.
bool same_json(const Json& a, const Json& b);
// -1, 0, 1 for two numbers of any kind, exact for 64-bit integers.
int compare_numbers(const Json& a, const Json& b);
bool is_whole(const Json& number);  // 3 and 3.0

}  // namespace thimble
