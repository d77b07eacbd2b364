#include "data/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "calls/constraint.h"
#include "calls/validate.h"
#include "core/error.h"
#include "data/argument_order.h"
#include "data/fold.h"
#include "data/similar.h"

namespace thimble {
namespace {

constexpr double kNear = 0.7;  // about one word in ten differs: similarity from which requests are near duplicates
constexpr size_t kErrorsShown = 10;
constexpr size_t kExamples = 5;  // rows named in a note

// All that is said before the answer, as one text.
std::string conversation(const Row& row) {
  std::string text;
  for (const Turn& turn : row.turns) {
    if (!text.empty()) text += '\n';
    text += turn.content;
    for (const Call& call : turn.calls)
      text.append("\n").append(call.name).append(" ").append(write_json(call.arguments));
  }
  return text;
}

std::vector<std::string> conversations(std::span<const Row> rows) {
  std::vector<std::string> texts;
  for (const Row& row : rows) texts.push_back(conversation(row));
  return texts;
}

bool same_calls(std::span<const Call> a, std::span<const Call> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Call& x, const Call& y) {
    return x.name == y.name && same_json(x.arguments, y.arguments);
  });
}

bool says_something(std::string_view text) { return text.find_first_not_of(" \t\r\n") != std::string_view::npos; }

// Rows that are for preference tuning may ask the same, each with another wrong answer or verdict.
bool judged(const Row& row) { return row.rejected || row.label; }

// Checks calls against one set of tools; compiled once for all rows that use it.
class CallChecker {
 public:
  explicit CallChecker(std::span<const Tool> tools) : tools_(tools) {
    for (const Tool& tool : tools) validators_.emplace_back(tool.parameters, fmt::format("tool {}", tool.name));
    answer_grammar(tools);  // throws what can't be held to
  }

  void check(const Row& row, const std::string& place, std::vector<std::string>& errors) const {
    for (size_t i = 0; i < row.calls.size(); ++i) {
      const Call& call = row.calls[i];
      const std::string which = row.calls.size() == 1 ? "the call" : fmt::format("call {}", i + 1);
      const Tool* tool = find_tool(tools_, call.name);
      if (tool == nullptr) {
        errors.push_back(fmt::format("{}: {} is of \"{}\", but there is no such tool.", place, which, call.name));
        continue;
      }
      for (const SchemaProblem& problem :
           validators_[static_cast<size_t>(tool - tools_.data())].check(call.arguments)) {
        errors.push_back(fmt::format("{}: {} of {} does not fit the tool's schema: {}{}{}.", place, which, call.name,
                                     problem.place, problem.place.empty() ? "" : " ", problem.what));
      }
      refuse_unlisted(call, *tool, fmt::format("{}: {}", place, which), errors);
    }
  }

 private:
  // A schema that is silent about additional properties lets them pass, but no constrained answer has them.
  static void refuse_unlisted(const Call& call, const Tool& tool, const std::string& place,
                              std::vector<std::string>& errors) {
    const Json& schema = tool.parameters;
    if (schema.contains("additionalProperties") || !schema.contains("properties") || schema.contains("allOf") ||
        schema.contains("anyOf") || schema.contains("oneOf") || schema.contains("$ref")) {
      return;
    }
    for (const auto& [key, value] : call.arguments.items()) {
      if (!schema["properties"].contains(key)) {
        errors.push_back(
            fmt::format("{} of {} has the argument \"{}\", which the tool does not list.", place, call.name, key));
      }
    }
  }

  std::span<const Tool> tools_;
  std::vector<SchemaValidator> validators_;
};

void check_calls(std::span<const Row> rows, std::span<const Tool> tools, std::string_view where, CheckReport& report) {
  std::optional<CallChecker> common;
  try {
    common.emplace(tools);
  } catch (const Error& error) {
    report.errors.emplace_back(error.what());
    return;
  }
  for (const Row& row : rows) {
    if (!row.label.value_or(true)) continue;
    const std::string place = fmt::format("{}: row {}", where, row.number);
    if (!row.tools) {
      common->check(row, place, report.errors);
      continue;
    }
    try {
      CallChecker(*row.tools).check(row, place, report.errors);
    } catch (const Error& error) {
      report.errors.push_back(fmt::format("{}: {}", place, error.what()));
    }
  }
}

// "rows 3, 9 and 12 more"
std::string some_rows(const std::vector<std::string>& rows) {
  const size_t shown = std::min(rows.size(), kExamples);
  std::string text = fmt::format("{}", fmt::join(rows.begin(), rows.begin() + static_cast<ptrdiff_t>(shown), ", "));
  if (rows.size() > shown) text += fmt::format(" and {} more", rows.size() - shown);
  return text;
}

void note_duplicates(std::span<const Row> rows, std::string_view where, CheckReport& report) {
  const std::vector<std::string> texts = conversations(rows);
  std::unordered_map<std::string, size_t> first;
  std::vector<std::string> repeated, conflicting, near;
  std::vector<std::string> distinct;
  std::vector<size_t> origin;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [found, is_new] = first.emplace(fold_words(texts[i]), i);
    if (is_new) {
      distinct.push_back(texts[i]);
      origin.push_back(i);
      continue;
    }
    const Row& other = rows[found->second];
    if (judged(rows[i]) && judged(other)) continue;
    (same_calls(rows[i].calls, other.calls) ? repeated : conflicting)
        .push_back(fmt::format("{} ({})", rows[i].number, other.number));
  }
  for (const SimilarPair& pair : similar_within(distinct, kNear)) {
    near.push_back(fmt::format("{} ({})", rows[origin[pair.b]].number, rows[origin[pair.a]].number));
  }
  const auto note = [&](const std::vector<std::string>& list, const char* what) {
    if (!list.empty()) report.notes.push_back(fmt::format("{}: {}: {}.", where, what, some_rows(list)));
  };
  note(conflicting, "rows that ask the same as another row (in brackets) but have other calls; make them agree");
  note(repeated, "rows that repeat another row (in brackets)");
  note(near, "rows that are nearly the same as another row (in brackets)");
}

// Tools whose arguments most requests name in another order than their schema.
void note_argument_orders(std::span<const Row> rows, std::span<const Tool> tools, std::string_view where,
                          CheckReport& report) {
  constexpr size_t kEnough = 100;
  for (const ArgumentOrder& o : argument_orders(rows, tools)) {
    if (o.pairs < kEnough || o.in_better_order < o.in_order + o.pairs / 4) continue;
    const double pairs = static_cast<double>(o.pairs) / 100;
    report.notes.push_back(fmt::format(
        "{}: answers list the arguments of {} as its properties stand; of two of them, requests name the first first "
        "in {:.0f} %; with the properties {} in this order it would be {:.0f} %.",
        where, o.tool, static_cast<double>(o.in_order) / pairs, fmt::join(o.better, ", "),
        static_cast<double>(o.in_better_order) / pairs));
  }
}

// Turns that no chat template means: two of the same speaker, or a tool's that nobody called.
void check_turns(const Row& row, const std::string& place, CheckReport& report) {
  for (size_t i = 0; i < row.turns.size(); ++i) {
    const std::string& role = row.turns[i].role;
    const Turn* before = i > 0 ? &row.turns[i - 1] : nullptr;
    if (before != nullptr && role == before->role && role != "tool")
      report.errors.push_back(
          fmt::format("{}: messages {} and {} are both of the {}; join them into one.", place, i, i + 1, role));
    if (role == "tool" && (before == nullptr || (before->role != "tool" && before->calls.empty())))
      report.errors.push_back(fmt::format(
          "{}: message {} is of a tool, but the one before it calls none; take it out or add the call.", place, i + 1));
  }
}

// An intent is the tool that lacks its required argument, or the name of what no tool does.
void check_intent(const Row& row, std::span<const Tool> tools, const std::string& place, CheckReport& report) {
  if (!row.calls.empty()) {
    report.errors.push_back(place + ": there are calls and an intent; the calls say what is meant, leave it out.");
    return;
  }
  const Tool* tool = find_tool(tools, row.intent);
  if (row.missing.empty()) {
    if (tool != nullptr)
      report.errors.push_back(
          fmt::format("{}: the intent {} is a tool, but there is no call; say which argument is \"missing\", or name "
                      "what no tool does.",
                      place, row.intent));
    return;
  }
  const auto required = tool == nullptr ? std::vector<std::string>{} : required_arguments(*tool);
  if (std::find(required.begin(), required.end(), row.missing) == required.end())
    report.errors.push_back(
        fmt::format("{}: \"{}\" is said to be missing, but the intent {} is no tool that requires it.", place,
                    row.missing, row.intent));
}

void check_rejected(const Row& row, const std::string& place, CheckReport& report) {
  const RejectedAnswer& rejected = *row.rejected;
  if (rejected.calls.empty() && !says_something(rejected.text)) {
    report.errors.push_back(place + ": the rejected answer is empty; give it calls or an \"answer\".");
  } else if (same_calls(rejected.calls, row.calls) && rejected.text == row.answer) {
    report.errors.push_back(place + ": the rejected answer is the right one; say what is wrong, or leave the row out.");
  }
}

}  // namespace

void CheckReport::throw_if_errors() const {
  if (errors.empty()) return;
  if (errors.size() == 1) throw Error(errors.front());
  const size_t shown = std::min(errors.size(), kErrorsShown);
  std::string text = fmt::format("{} problems were found in the data:", errors.size());
  for (size_t i = 0; i < shown; ++i) text.append("\n  ").append(errors[i]);
  if (errors.size() > shown) text += fmt::format("\n  and {} more; mend these first.", errors.size() - shown);
  throw Error(text);
}

CheckReport check_rows(std::span<const Row> rows, std::span<const Tool> tools, std::string_view where) {
  CheckReport report;
  for (const Row& row : rows) {
    const std::string place = fmt::format("{}: row {}", where, row.number);
    const bool says = says_something(row.answer);
    if (row.calls.empty() && !says) {
      report.errors.push_back(
          place + ": there are no calls and no answer text, so it would train on nothing; add an \"answer\".");
    }
    if (!row.calls.empty() && says) {
      report.errors.push_back(place +
                              ": there are calls and an answer text; an answer is one or the other, leave one out.");
    }
    if (row.rejected) check_rejected(row, place, report);
    check_turns(row, place, report);
    if (!row.intent.empty()) check_intent(row, row.tools ? std::span<const Tool>(*row.tools) : tools, place, report);
    if (!row.missing.empty() && !row.calls.empty()) {
      report.errors.push_back(
          fmt::format("{}: \"{}\" is said to be missing, but there are calls; leave one out.", place, row.missing));
    }
  }
  check_calls(rows, tools, where, report);
  note_duplicates(rows, where, report);
  note_argument_orders(rows, tools, where, report);
  return report;
}

CheckReport check_test_rows(std::span<const Row> rows, std::span<const Tool> tools, std::string_view where) {
  CheckReport report;
  for (const Row& row : rows)
    if (!row.label.value_or(true))
      report.errors.push_back(fmt::format(
          "{}: row {}: its answer has the label false, but a test needs what is right; leave the row out.", where,
          row.number));
  check_calls(rows, tools, where, report);
  return report;
}

CheckReport check_leaks(std::span<const Row> train, std::span<const Row> test, std::string_view train_where,
                        std::string_view test_where) {
  CheckReport report;
  const std::vector<std::string> trained = conversations(train), tested = conversations(test);
  std::unordered_map<std::string, size_t> known;
  for (size_t i = 0; i < train.size(); ++i) known.emplace(fold_words(trained[i]), i);
  std::vector<bool> leaks(test.size());
  for (size_t i = 0; i < test.size(); ++i) {
    const auto found = known.find(fold_words(tested[i]));
    if (found == known.end()) continue;
    leaks[i] = true;
    report.errors.push_back(fmt::format("{}: row {} is also trained on, as row {} of {}; take it out of one of them.",
                                        test_where, test[i].number, train[found->second].number, train_where));
  }
  std::map<size_t, SimilarPair> nearest;  // by test row
  for (const SimilarPair& pair : similar_between(trained, tested, kNear)) {
    if (leaks[pair.b]) continue;
    const auto [kept, is_new] = nearest.emplace(pair.b, pair);
    if (!is_new && pair.similarity > kept->second.similarity) kept->second = pair;
  }
  std::vector<std::string> rows;
  for (const auto& [index, pair] : nearest)
    rows.push_back(fmt::format("{} ({})", test[index].number, train[pair.a].number));
  if (!rows.empty()) {
    report.notes.push_back(fmt::format("{}: rows that are nearly the same as a row of {} (in brackets): {}.",
                                       test_where, train_where, some_rows(rows)));
  }
  return report;
}

}  // namespace thimble
