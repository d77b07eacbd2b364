#include "calls/number_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

namespace thimble {
namespace {

constexpr int kWholeDigits = 18;
constexpr int kFractionDigits = 24;
constexpr long long kLargest = 999'999'999'999'999'999;  // 18 digits

using Expression = std::optional<std::string>;  // nothing: no text matches

std::string digit(char first, char last) {
  return first == last ? fmt::format("\"{}\"", first) : fmt::format("[{}-{}]", first, last);
}
std::string any_digits(size_t count) { return count == 0 ? "\"\"" : fmt::format("[0-9]{{{}}}", count); }

Expression either(const std::vector<Expression>& alternatives) {
  std::string out;
  for (const Expression& e : alternatives) {
    if (!e) continue;
    if (!out.empty()) out += " | ";
    out += *e;
  }
  if (out.empty()) return std::nullopt;
  return fmt::format("({})", out);
}
Expression then(const std::string& first, const Expression& second) {
  if (!second) return std::nullopt;
  return fmt::format("{} {}", first, *second);
}

std::string power_of_ten(size_t digits) {  // the smallest number of that many digits
  std::string text(digits, '0');
  text[0] = '1';
  return text;
}

// Digit strings of one length between low and high.
Expression same_length(std::string_view low, std::string_view high) {
  if (low.empty()) return "\"\"";
  const bool low_open = low.find_first_not_of('0') == std::string_view::npos;
  const bool high_open = high.find_first_not_of('9') == std::string_view::npos;
  if (low_open && high_open) return any_digits(low.size());
  if (low[0] == high[0]) return then(digit(low[0], low[0]), same_length(low.substr(1), high.substr(1)));
  const std::string nines(low.size() - 1, '9'), zeros(low.size() - 1, '0');
  char first = low[0], last = high[0];
  std::vector<Expression> alternatives;
  if (low.substr(1) != zeros) {
    alternatives.push_back(then(digit(first, first), same_length(low.substr(1), nines)));
    ++first;
  }
  Expression top;
  if (high.substr(1) != nines) {
    top = then(digit(last, last), same_length(zeros, high.substr(1)));
    --last;
  }
  if (first <= last) alternatives.push_back(digit(first, last) + " " + any_digits(low.size() - 1));
  alternatives.push_back(top);
  return either(alternatives);
}

// Whole numbers without sign, 0 <= low.
Expression whole_range(long long low, long long high) {
  if (low > high) return std::nullopt;
  std::vector<Expression> alternatives;
  const std::string high_text = std::to_string(high);
  const std::string from = std::to_string(std::max(low, 1LL));
  if (low == 0) {
    alternatives.emplace_back("\"0\"");
    if (high == 0) return either(alternatives);
  }
  // The lengths between, which are open on both sides, are one alternative.
  size_t open_first = from.size();
  if (from.size() < high_text.size() && from != power_of_ten(from.size())) {
    alternatives.push_back(same_length(from, std::string(from.size(), '9')));
    ++open_first;
  }
  size_t open_last = high_text.size() - 1;
  if (from.size() < high_text.size() && high_text == std::string(high_text.size(), '9')) ++open_last;
  if (from.size() < high_text.size() && open_first <= open_last) {
    alternatives.push_back(fmt::format("[1-9] [0-9]{{{},{}}}", open_first - 1, open_last - 1));
  }
  if (from.size() == high_text.size()) {
    alternatives.push_back(same_length(from, high_text));
  } else if (open_last < high_text.size()) {
    alternatives.push_back(same_length(power_of_ten(high_text.size()), high_text));
  }
  return either(alternatives);
}

const std::string kTail = fmt::format("[0-9]{{0,{}}}", kFractionDigits);
const std::string kZeros = fmt::format("\"0\"{{0,{}}}", kFractionDigits);
const std::string kAnyFraction = fmt::format("(\".\" [0-9]{{1,{}}})?", kFractionDigits);

// Digits after the point, read as a fraction, from `low` on; may be empty text where that is enough.
Expression fraction_from(std::string_view low, bool exclusive) {
  if (low.empty()) return exclusive ? fmt::format("{} [1-9] {}", kZeros, kTail) : kTail;
  std::vector<Expression> alternatives;
  if (low[0] < '9') alternatives.emplace_back(digit(static_cast<char>(low[0] + 1), '9') + " " + kTail);
  alternatives.push_back(then(digit(low[0], low[0]), fraction_from(low.substr(1), exclusive)));
  return either(alternatives);
}
// Up to `high`; `may_end` says whether empty text may match (not right after the point).
Expression fraction_to(std::string_view high, bool exclusive, bool may_end) {
  if (high.empty()) {
    if (exclusive) return std::nullopt;
    return may_end ? kZeros : fmt::format("\"0\"{{1,{}}}", kFractionDigits);
  }
  std::vector<Expression> alternatives;
  if (may_end) alternatives.emplace_back("\"\"");
  if (high[0] > '0') alternatives.emplace_back(digit('0', static_cast<char>(high[0] - 1)) + " " + kTail);
  alternatives.push_back(then(digit(high[0], high[0]), fraction_to(high.substr(1), exclusive, true)));
  return either(alternatives);
}
Expression fraction_between(std::string_view low, bool low_exclusive, std::string_view high, bool high_exclusive,
                            bool may_end) {
  if (high.empty()) {  // only zeros can follow, and only if low has nothing left either
    if (!low.empty() || low_exclusive) return std::nullopt;
    return fraction_to(high, high_exclusive, may_end);
  }
  if (low.empty() && !low_exclusive) return fraction_to(high, high_exclusive, may_end);
  const char first = low.empty() ? '0' : low[0];
  const std::string_view low_rest = low.empty() ? low : low.substr(1);
  if (first == high[0]) {
    return then(digit(first, first), fraction_between(low_rest, low_exclusive, high.substr(1), high_exclusive, true));
  }
  if (first > high[0]) return std::nullopt;
  std::vector<Expression> alternatives;
  alternatives.push_back(then(digit(first, first), fraction_from(low_rest, low_exclusive)));
  if (first + 1 < high[0]) {
    alternatives.emplace_back(digit(static_cast<char>(first + 1), static_cast<char>(high[0] - 1)) + " " + kTail);
  }
  alternatives.push_back(then(digit(high[0], high[0]), fraction_to(high.substr(1), high_exclusive, true)));
  return either(alternatives);
}

std::string literal(std::string_view digits) { return fmt::format("\"{}\"", digits); }

// Numbers without sign from low on, up to high where there is one.
Expression unsigned_range(const Bound& low, const std::optional<Bound>& high) {
  const long long low_whole = std::stoll(low.value.whole);
  const long long high_whole = high ? std::stoll(high->value.whole) : kLargest;
  if (low_whole > high_whole) return std::nullopt;
  std::vector<Expression> alternatives;
  const auto with_point = [](const Expression& fraction, bool bare) -> Expression {
    if (!fraction) return bare ? Expression("\"\"") : std::nullopt;
    return bare ? fmt::format("(\".\" ({}))?", *fraction) : fmt::format("\".\" ({})", *fraction);
  };
  // Right after the point one digit must stand: zeros for a bound that has no fraction.
  const auto nonempty_from = [&](std::string_view fraction, bool exclusive) -> Expression {
    if (fraction.empty() && !exclusive) return fmt::format("[0-9]{{1,{}}}", kFractionDigits);
    return fraction_from(fraction, exclusive);
  };
  if (high && low_whole == high_whole) {
    const bool bare =
        low.value.fraction.empty() && !low.exclusive && (!high->value.fraction.empty() || !high->exclusive);
    return then(literal(low.value.whole), with_point(fraction_between(low.value.fraction, low.exclusive,
                                                                      high->value.fraction, high->exclusive, false),
                                                     bare));
  }
  if (low.value.fraction.empty() && !low.exclusive) {
    alternatives.push_back(then(literal(low.value.whole), kAnyFraction));
  } else {
    alternatives.push_back(
        then(literal(low.value.whole), with_point(nonempty_from(low.value.fraction, low.exclusive), false)));
  }
  if (const Expression between = whole_range(low_whole + 1, high ? high_whole - 1 : kLargest)) {
    alternatives.push_back(*between + " " + kAnyFraction);
  }
  if (high) {
    const bool bare = !high->value.fraction.empty() || !high->exclusive;
    const Expression fraction = fraction_to(high->value.fraction, high->exclusive, false);
    if (bare || fraction) alternatives.push_back(then(literal(high->value.whole), with_point(fraction, bare)));
  }
  return either(alternatives);
}

Bound mirrored(Bound bound) {
  bound.value.negative = !bound.value.negative;
  return bound;
}
bool is_zero(const Decimal& value) { return value.whole == "0" && value.fraction.empty(); }

}  // namespace

std::optional<Decimal> decimal_of(double value) {
  if (!(std::fabs(value) < 1e18)) return std::nullopt;
  char buffer[400];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value), std::chars_format::fixed).ptr;
  const std::string text(buffer, end);
  const size_t point = text.find('.');
  Decimal result{value < 0, text.substr(0, point), point == std::string::npos ? "" : text.substr(point + 1)};
  if (result.fraction.size() > kFractionDigits) return std::nullopt;
  return result;
}

std::optional<std::string> integer_range(std::optional<long long> low, std::optional<long long> high) {
  const long long from = std::max(low.value_or(-kLargest), -kLargest);
  const long long to = std::min(high.value_or(kLargest), kLargest);
  std::vector<Expression> alternatives;
  if (from < 0) alternatives.push_back(then("\"-\"", whole_range(to < 0 ? -to : 1, -from)));
  if (to >= 0) alternatives.push_back(whole_range(std::max(from, 0LL), to));
  return either(alternatives);
}

std::optional<std::string> number_range(const std::optional<Bound>& low, const std::optional<Bound>& high) {
  const Bound zero{{false, "0", ""}, false};
  const Bound above_zero{{false, "0", ""}, true};
  const auto negative = [](const std::optional<Bound>& b) { return b && b->value.negative && !is_zero(b->value); };
  std::vector<Expression> alternatives;
  if (!low || negative(low)) {  // numbers below zero: mirror
    std::optional<Bound> far;
    if (low) far = mirrored(*low);
    const Bound near = negative(high) ? mirrored(*high) : above_zero;
    alternatives.push_back(then("\"-\"", unsigned_range(near, far)));
  }
  if (!negative(high)) alternatives.push_back(unsigned_range(!low || negative(low) ? zero : *low, high));
  return either(alternatives);
}

}  // namespace thimble
