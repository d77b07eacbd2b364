#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace thimble {

// A regular expression as the grammar of the inside of a JSON string, and how many characters it can match.
struct PatternGrammar {
  std::string expression;  // EBNF, in parentheses where it needs them
  size_t fewest = 0;
  std::optional<size_t> most;  // nothing: no limit
};

// ECMA 262 patterns as JSON Schema uses them (a search, so that without ^ and $ anything may stand around): literals,
// classes, \d \w \s and their opposites (ASCII), dot, groups, alternatives, quantifiers, ^ and $ at the ends of the
// whole pattern or of its alternatives. Throws Error with `where` for the rest: look-around, back references, \b, \p,
// anchors inside. `any_char` is the rule for one character of a JSON string.
PatternGrammar pattern_to_grammar(std::string_view pattern, const std::string& any_char, std::string_view where);

}  // namespace thimble
