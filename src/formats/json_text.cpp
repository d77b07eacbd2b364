#include "formats/json_text.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "core/error.h"

namespace thimble {
namespace {
constexpr int kDeepest = 64;
}

nlohmann::json parse_json(std::string_view text, const std::string& place) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kDeepest) throw Error(fmt::format("{}: JSON is nested deeper than {} levels", place, kDeepest));
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get_ref<const std::string&>()).second)
      throw Error(fmt::format("{}: JSON key '{}' appears twice in one object; remove one of them", place,
                              value.get_ref<const std::string&>()));
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::exception& e) {
    std::string reason = e.what();  // "[json.exception.parse_error.101] parse error at line 1, ..."
    if (const size_t end = reason.find("] "); end != std::string::npos) reason = reason.substr(end + 2);
    throw Error(fmt::format("{}: is not valid JSON ({}); mend or fetch the file again", place, reason));
  }
}

nlohmann::json parse_json_object(std::string_view text, const std::string& place) {
  nlohmann::json value = parse_json(text, place);
  if (!value.is_object()) throw Error(fmt::format("{}: must hold a JSON object", place));
  return value;
}

}  // namespace thimble
