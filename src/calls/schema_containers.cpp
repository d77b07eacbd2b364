// The arrays and objects of SchemaConverter.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <set>

#include "calls/schema_converter.h"
#include "calls/validate.h"

namespace thimble {
namespace {

constexpr size_t kMostItems = 10'000;
constexpr size_t kMostUnique = 8;

std::string repeat(size_t low, std::optional<size_t> high) {
  return high ? fmt::format("{{{},{}}}", low, *high) : fmt::format("{{{},}}", low);
}

}  // namespace

SchemaConverter::Expression SchemaConverter::convert_array(const Json& schema, const std::string& place, int depth) {
  const size_t low = schema.value("minItems", size_t{0});
  std::optional<size_t> high;
  if (schema.contains("maxItems")) high = schema["maxItems"].get<size_t>();
  if (low > kMostItems) fail(place, "\"minItems\" is too large to constrain answers");
  if (high && *high > kMostItems) high = kMostItems;
  const Json prefix = schema.value("prefixItems", Json::array());
  const Json items = schema.contains("items") ? schema["items"] : Json(true);
  if (schema.value("uniqueItems", false) && (!high || *high > 1)) {
    if (!prefix.empty())
      fail(place, "the schema keyword \"uniqueItems\" can't be used to constrain answers beside \"prefixItems\"");
    return convert_unique(items, low, high, place);
  }
  Expression rest = convert(items, place + "/items", depth + 1);
  // An array can't be longer than its first impossible item.
  std::vector<std::string> fixed;
  for (size_t i = 0; i < prefix.size(); ++i) {
    auto item = convert(prefix[i], fmt::format("{}/prefixItems/{}", place, i), depth + 1);
    if (!item) {
      rest = std::nullopt;
      break;
    }
    fixed.push_back(std::move(*item));
  }
  const size_t most = rest ? high.value_or(kMostItems + 1) : std::min(high.value_or(fixed.size()), fixed.size());
  if (most < low) return std::nullopt;

  // From the back: what may follow after i items.
  Expression after;  // nothing: the array must end
  const size_t n = std::min(fixed.size(), most);
  if (rest && most > fixed.size()) {
    const size_t fewest = low > fixed.size() ? low - fixed.size() : 0;
    const std::optional<size_t> largest = high ? std::optional(*high - fixed.size()) : std::nullopt;
    if (fixed.empty()) {
      const std::string more =
          repeat(fewest > 0 ? fewest - 1 : 0, largest ? std::optional(*largest - 1) : std::nullopt);
      const std::string list = fmt::format("{} (\", \" {}){}", *rest, *rest, more);
      return grammar_.add("array",
                          fewest > 0 ? fmt::format("\"[\" {} \"]\"", list) : fmt::format("\"[\" ({})? \"]\"", list));
    }
    after = fmt::format("(\", \" {}){}", *rest, repeat(fewest, largest));
  }
  for (size_t i = n; i-- > 0;) {
    std::string item = i == 0 ? fixed[i] : fmt::format("\", \" {}", fixed[i]);
    if (after) item += " " + *after;
    after = low > i ? item : fmt::format("({})?", item);
  }
  return grammar_.add("array", after ? fmt::format("\"[\" {} \"]\"", *after) : "\"[]\"");
}

// All orders of different values from a short list: a rule for each set of values that are still free.
SchemaConverter::Expression SchemaConverter::convert_unique(const Json& items, size_t low, std::optional<size_t> high,
                                                            const std::string& place) {
  const Json* target = &items;
  for (int i = 0; i < 16 && target->is_object() && target->contains("$ref"); ++i) {
    target = &resolve_reference(document_, (*target)["$ref"].get<std::string>(), where_);
  }
  std::vector<std::string> values;
  if (target->is_object() && target->contains("enum")) {
    const SchemaValidator validator(*target, document_, where_ + ": " + place);
    for (const Json& value : (*target)["enum"]) {
      const std::string text = quote_literal(write_json(value));
      if (validator.accepts(value) && std::find(values.begin(), values.end(), text) == values.end())
        values.push_back(text);
    }
  }
  if (values.empty() || values.size() > kMostUnique) {
    fail(place,
         "the schema keyword \"uniqueItems\" can't be used to constrain answers but over an \"enum\" of up to eight "
         "values");
  }
  const size_t most = std::min(high.value_or(values.size()), values.size());
  if (most < low) return std::nullopt;
  const size_t sets = size_t{1} << values.size();
  std::vector<std::string> rule(sets);  // by the values used so far: what may follow
  for (size_t used = sets; used-- > 0;) {
    const auto count = static_cast<size_t>(std::popcount(used));
    if (count > most) continue;
    std::string body = count >= low ? "\"\"" : "";
    for (size_t i = 0; i < values.size() && count < most; ++i) {
      if (used >> i & 1) continue;
      body += fmt::format("{}{}{} {}", body.empty() ? "" : " | ", used == 0 ? "" : "\", \" ", values[i],
                          rule[used | size_t{1} << i]);
    }
    rule[used] = grammar_.add("unique", body);
  }
  return grammar_.add("array", fmt::format("\"[\" {} \"]\"", rule[0]));
}

SchemaConverter::Expression SchemaConverter::convert_object(const Json& schema, const std::string& place, int depth) {
  struct Member {
    std::string text;  // "name": value
    bool required;
  };
  std::vector<Member> members;
  std::set<std::string> required;
  for (const Json& name : schema.value("required", Json::array())) required.insert(name.get<std::string>());
  const Json properties = schema.value("properties", Json::object());
  const bool silent = !schema.contains("additionalProperties");
  const bool closed = silent && schema.contains("properties");
  const Json others = silent ? Json(true) : schema["additionalProperties"];
  std::vector<std::string> named;
  const auto add_member = [&](const std::string& name, const Json& value, const std::string& at) {
    named.push_back(name);
    const auto e = convert(value, at, depth + 1);
    if (e)
      members.push_back(
          {fmt::format("{} {}", quote_literal(write_json_string(name) + ": "), *e), required.contains(name)});
    return e || !required.contains(name);
  };
  for (const auto& [name, value] : properties.items()) {
    if (!add_member(name, value, place + "/properties/" + name)) return std::nullopt;
  }
  for (const std::string& name : required) {
    if (properties.contains(name)) continue;
    if (closed) fail(place, fmt::format("\"{}\" is required but not among the properties", name));
    if (!add_member(name, others, place + "/additionalProperties")) return std::nullopt;
  }
  // Counts hold by themselves or not at all.
  const Expression other = closed ? std::nullopt : convert(others, place + "/additionalProperties", depth + 1);
  if (schema.contains("minProperties") &&
      schema["minProperties"].get<double>() > static_cast<double>(required.size())) {
    fail(place,
         "the schema keyword \"minProperties\" can't be used to constrain answers; list the names in \"required\"");
  }
  if (schema.contains("maxProperties") &&
      (other || schema["maxProperties"].get<double>() < static_cast<double>(members.size()))) {
    fail(place, "the schema keyword \"maxProperties\" can't be used to constrain answers");
  }
  if (members.empty() && other && named.empty()) {
    if (*other == rules_.value()) return rules_.object();
    const std::string member = fmt::format("{} \": \" {}", rules_.string(), *other);
    return grammar_.add("object", fmt::format("\"{{\" ({} (\", \" {})*)? \"}}\"", member, member));
  }
  // From the back, twice: what may follow when nothing was written yet, and when something was.
  std::string first = "\"\"", next = "\"\"";
  if (other) {
    const std::string member = fmt::format("{} \": \" {}", other_name(named), *other);
    next = grammar_.add("more", fmt::format("(\", \" {})*", member));
    first = grammar_.add("more", fmt::format("({} (\", \" {})*)?", member, member));
  }
  for (size_t i = members.size(); i-- > 0;) {
    const Member& m = members[i];
    const std::string skip_first = m.required ? "" : " | " + first, skip_next = m.required ? "" : " | " + next;
    const std::string new_first = grammar_.add("members", fmt::format("{} {}{}", m.text, next, skip_first));
    const bool followed = i > 0;  // the first member never stands after another
    if (followed) next = grammar_.add("members", fmt::format("\", \" {} {}{}", m.text, next, skip_next));
    first = new_first;
  }
  return grammar_.add("object", fmt::format("\"{{\" {} \"}}\"", first));
}

// A key in quotes that is none of the named ones: a tree over their characters, with a way out wherever a key departs
// from all of them.
std::string SchemaConverter::other_name(const std::vector<std::string>& named) {
  // Characters as they are written inside the quotes; escapes count as one.
  std::set<std::vector<std::string>> keys;
  for (const std::string& name : named) {
    std::vector<std::string> units;
    for (size_t at = 0; at < name.size();) {
      size_t length = 1;
      while (at + length < name.size() && (static_cast<unsigned char>(name[at + length]) & 0xc0) == 0x80) ++length;
      units.push_back(name.substr(at, length));
      at += length;
    }
    keys.insert(units);
  }
  const auto code_of = [](const std::string& unit) {
    const auto lead = static_cast<unsigned char>(unit[0]);
    uint32_t code = lead < 0x80 ? lead : lead & (0x7f >> unit.size());
    for (size_t i = 1; i < unit.size(); ++i) code = code << 6 | (static_cast<unsigned char>(unit[i]) & 0x3f);
    return code;
  };
  const std::function<std::string(const std::vector<std::string>&)> node = [&](const std::vector<std::string>& prefix) {
    std::set<std::string> children;
    for (const auto& key : keys) {
      if (key.size() > prefix.size() && std::equal(prefix.begin(), prefix.end(), key.begin()))
        children.insert(key[prefix.size()]);
    }
    std::vector<CharSet::Range> taken;
    std::vector<std::string> alternatives;
    for (const std::string& unit : children) {
      const CharSet::Range range{code_of(unit), code_of(unit)};
      taken.push_back(range);
      std::vector<std::string> longer = prefix;
      longer.push_back(unit);
      alternatives.push_back(fmt::format("{} {}", json_char(CharSet({range})), node(longer)));
    }
    alternatives.push_back(
        fmt::format("{} {}* \"\\\"\"", json_char(CharSet::all().without(CharSet(taken))), rules_.any_char()));
    if (!keys.contains(prefix)) alternatives.push_back("\"\\\"\"");
    return grammar_.add("name", fmt::format("{}", fmt::join(alternatives, " | ")));
  };
  return fmt::format("\"\\\"\" {}", node({}));
}

}  // namespace thimble
