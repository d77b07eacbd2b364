#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace thimble {

// Parses JSON strictly: duplicate keys, nesting deeper than 64 and broken UTF-8 throw Error beginning with `place`
// (a file's name). Objects keep no order.
nlohmann::json parse_json(std::string_view text, const std::string& place);

// The same, and the outermost value must be an object.
nlohmann::json parse_json_object(std::string_view text, const std::string& place);

}  // namespace thimble
