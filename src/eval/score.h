#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calls/hermes.h"
#include "calls/tool.h"

namespace thimble {

// Why an answer is not exact. A row has one primary mode: the first of this list that applies.
enum class Failure {
  kUnparseable,       // a call block that could not be read
  kFalseCall,         // call when none was due
  kMissedCall,        // no call when one was due
  kUnknownTool,       // a name that no tool has
  kWrongCount,        // more or fewer calls than due
  kWrongTool,         // the names, in order, are not those due
  kMissingArgument,   // an argument that is due is absent
  kInventedArgument,  // an argument that is not due is there
  kWrongType,         // an argument's JSON type differs
  kWrongValue,        // only a value differs
};
inline constexpr size_t kFailures = 10;
std::string_view failure_name(Failure failure);  // the words of reports and of JSON: "wrong value"

struct RowScore {
  bool exact = false;
  bool due = false;                  // the row has gold calls
  bool called = false;               // at least one call could be read
  bool names_right = false;          // the predicted names are the gold names, in order
  size_t right = 0;                  // (tool, argument, value) triples that are in both
  size_t predicted = 0, gold = 0;    // triples on either side
  std::optional<Failure> failure;    // empty when exact
  std::vector<std::string> details;  // every difference, one sentence each
};

// Strings are equal after trimming and case folding, numbers by value, objects without order, lists in order; calls are
// compared in order, arguments without. A row without gold calls is exact when no call was made nor attempted; its
// text is not judged.
RowScore score_row(std::span<const Call> gold, const ParsedAnswer& answer, std::span<const Tool> tools);
bool same_argument(const Json& gold, const Json& predicted);

// A figure with its 95 % interval: Wilson's for shares, a seeded bootstrap over rows for F1.
struct Rate {
  double value = 0, low = 0, high = 1;
  size_t hits = 0, total = 0;  // of shares
};
Rate wilson(size_t hits, size_t total, double value_when_empty);

struct Score {
  size_t rows = 0;
  Rate exact;          // share of all rows
  Rate name_accuracy;  // share of the rows with gold calls whose predicted names are the gold names, in order; 1 where
                       // none
  Rate argument_f1;    // micro F1 over all (tool, argument, value) triples; 1 where neither side has any
  Rate false_calls;    // share of the rows without gold calls that got one; 0 where none
  Rate missed_calls;   // share of the rows with gold calls that got none; 0 where none
  std::array<size_t, kFailures> failures{};  // primary modes; they add up to the rows that are not exact
};
Score summarize(std::span<const RowScore> rows, uint64_t seed = 1);

// {"rows", "exact", "name_accuracy", "argument_f1", "false_calls", "missed_calls", "failures": {mode: count},
//  "intervals": {name: [low, high]}}; modes that did not occur are left out.
Json score_to_json(const Score& score);

}  // namespace thimble
