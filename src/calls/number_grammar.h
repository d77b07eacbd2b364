#pragma once

#include <optional>
#include <string>

namespace thimble {

// Grammars of numbers in a range, exact, as EBNF expressions in parentheses; nothing where the range holds no number.
// Integers have at most 18 digits (so that every one fits 64 bits), numbers at most 18 before and 24 after the point.

struct Decimal {  // sign and digits of a bound: -12.5 is {true, "12", "5"}
  bool negative = false;
  std::string whole;     // without leading zeros; "0" for none
  std::string fraction;  // without trailing zeros; may be empty
};
std::optional<Decimal> decimal_of(double value);  // exactly its shortest text; nothing beyond 10^18 in size

struct Bound {
  Decimal value;
  bool exclusive = false;
};

std::optional<std::string> integer_range(std::optional<long long> low,
                                         std::optional<long long> high);  // both inclusive
std::optional<std::string> number_range(const std::optional<Bound>& low, const std::optional<Bound>& high);

}  // namespace thimble
