// The strings and numbers of SchemaConverter.
#include <fmt/format.h>

#include <cmath>

#include "calls/number_grammar.h"
#include "calls/pattern_grammar.h"
#include "calls/schema_converter.h"
#include "calls/validate.h"

namespace thimble {
namespace {

constexpr size_t kMostCharacters = 100'000;
constexpr long long kMostListed = 1000;

}  // namespace

SchemaConverter::Expression SchemaConverter::convert_string(const Json& schema, const std::string& place) {
  const size_t low = schema.value("minLength", size_t{0});
  std::optional<size_t> high;
  if (schema.contains("maxLength")) high = schema["maxLength"].get<size_t>();
  if (high && *high < low) return std::nullopt;
  if (schema.contains("pattern")) {
    const std::string pattern = schema["pattern"];
    const PatternGrammar inside = pattern_to_grammar(pattern, rules_.any_char(), where_ + ": " + place);
    // Lengths are held to only where the pattern does it by itself.
    if (inside.fewest < low || (high && (!inside.most || *inside.most > *high))) {
      fail(place,
           fmt::format(
               "the pattern \"{}\" matches other lengths than minLength and maxLength allow; write the lengths into it",
               pattern));
    }
    return grammar_.add("pattern", fmt::format(R"("\"" {} "\"")", inside.expression));
  }
  if (low == 0 && !high) return rules_.string();
  if (low > kMostCharacters || (high && *high > kMostCharacters)) {
    if (low > kMostCharacters) fail(place, "\"minLength\" is too large to constrain answers");
    high = kMostCharacters;
  }
  const std::string characters = high ? grammar_.add_characters("characters", rules_.any_char(), low, *high)
                                      : fmt::format("{}{{{},}}", rules_.any_char(), low);
  return grammar_.add("string", fmt::format(R"("\"" {} "\"")", characters));
}

SchemaConverter::Expression SchemaConverter::convert_number(const Json& schema, bool whole, const std::string& place) {
  const auto bound = [&](const char* inclusive, const char* exclusive,
                         bool lower) -> std::optional<std::pair<Json, bool>> {
    std::optional<std::pair<Json, bool>> result;
    if (schema.contains(inclusive)) result.emplace(schema[inclusive], false);
    if (schema.contains(exclusive)) {
      const int order = result ? compare_numbers(schema[exclusive], result->first) : 0;
      if (!result || order == 0 || (order > 0) == lower) result.emplace(schema[exclusive], true);
    }
    return result;
  };
  const auto low = bound("minimum", "exclusiveMinimum", true);
  const auto high = bound("maximum", "exclusiveMaximum", false);
  if (schema.contains("multipleOf") && !(whole && is_whole(schema["multipleOf"]))) {
    fail(place,
         "the schema keyword \"multipleOf\" can't be used to constrain answers but for integers between two bounds");
  }
  if (!whole) {
    if (!low && !high) return rules_.number();
    const auto decimal = [&](const std::optional<std::pair<Json, bool>>& b, bool lower) -> std::optional<Bound> {
      if (!b) return std::nullopt;
      const double value = b->first.get<double>();
      if (std::fabs(value) >= 1e18 && (value < 0) == lower) return std::nullopt;  // beyond all 18-digit numbers
      const auto text = decimal_of(value);
      if (!text)
        fail(place, fmt::format("the bound {} has too many digits to constrain answers", write_json(b->first)));
      return Bound{*text, b->second};
    };
    const auto e = number_range(decimal(low, true), decimal(high, false));
    return e ? Expression(grammar_.add("number", *e)) : std::nullopt;
  }
  constexpr double kLimit = 1e18;
  std::optional<long long> from, to;
  if (low) {
    const double value = low->first.get<double>();
    if (value >= kLimit) return std::nullopt;
    if (value > -kLimit) {
      from = low->first.is_number_integer() ? low->first.get<long long>() : static_cast<long long>(std::ceil(value));
      if (low->second && is_whole(low->first)) ++*from;
    }
  }
  if (high) {
    const double value = high->first.get<double>();
    if (value <= -kLimit) return std::nullopt;
    if (value < kLimit) {
      to = high->first.is_number_integer() ? high->first.get<long long>() : static_cast<long long>(std::floor(value));
      if (high->second && is_whole(high->first)) --*to;
    }
  }
  if (schema.contains("multipleOf") && compare_numbers(schema["multipleOf"], 1) != 0) {
    const auto step = static_cast<long long>(schema["multipleOf"].get<double>());
    if (!from || !to || (*to - *from) / step > kMostListed) {
      fail(place,
           "the schema keyword \"multipleOf\" can't be used to constrain answers but for integers between two near "
           "bounds");
    }
    std::string body;
    for (long long value = *from - ((*from % step) + step) % step; value <= *to; value += step) {
      if (value >= *from) body += fmt::format("{}\"{}\"", body.empty() ? "" : " | ", value);
    }
    return body.empty() ? std::nullopt : Expression(grammar_.add("integer", body));
  }
  if (!from && !to) return rules_.integer();
  const auto e = integer_range(from, to);
  return e ? Expression(grammar_.add("integer", *e)) : std::nullopt;
}

}  // namespace thimble
