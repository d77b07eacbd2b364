#include "eval/score.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "data/fold.h"

namespace thimble {
namespace {

constexpr size_t kResamples = 1000;

std::string_view kind_of(const Json& value) {
  if (value.is_number()) return "number";
  return value.is_boolean() ? "boolean" : value.type_name();
}

double f1(size_t right, size_t predicted, size_t gold) {
  if (predicted + gold == 0) return 1;
  return 2.0 * static_cast<double>(right) / static_cast<double>(predicted + gold);
}

struct Triple {
  const std::string* tool;
  const std::string* argument;
  const Json* value;
};

std::vector<Triple> triples(std::span<const Call> calls) {
  std::vector<Triple> list;
  for (const Call& call : calls) {
    for (const auto& [key, value] : call.arguments.get_ref<const Json::object_t&>()) {
      list.push_back({&call.name, &key, &value});
    }
  }
  return list;
}

// How many triples stand on both sides, each counted as often as on the side that has it less often.
size_t common(const std::vector<Triple>& gold, const std::vector<Triple>& predicted) {
  std::vector<bool> used(predicted.size());
  size_t count = 0;
  for (const Triple& g : gold) {
    for (size_t i = 0; i < predicted.size(); ++i) {
      const Triple& p = predicted[i];
      if (used[i] || *g.tool != *p.tool || *g.argument != *p.argument || !same_argument(*g.value, *p.value)) continue;
      used[i] = true;
      ++count;
      break;
    }
  }
  return count;
}

// Differences of two calls of one tool, as failure modes with sentences.
void compare_arguments(const Call& gold, const Call& predicted, std::vector<std::pair<Failure, std::string>>& found) {
  for (const auto& [key, value] : gold.arguments.items()) {
    const auto other = predicted.arguments.find(key);
    if (other == predicted.arguments.end()) {
      found.emplace_back(Failure::kMissingArgument,
                         fmt::format("{}: \"{}\" is missing, due is {}", gold.name, key, write_json(value)));
    } else if (!same_argument(value, *other)) {
      const bool type = kind_of(value) != kind_of(*other);
      found.emplace_back(
          type ? Failure::kWrongType : Failure::kWrongValue,
          fmt::format("{}: \"{}\" is {}, due is {}", gold.name, key, write_json(*other), write_json(value)));
    }
  }
  for (const auto& [key, value] : predicted.arguments.items()) {
    if (!gold.arguments.contains(key)) {
      found.emplace_back(Failure::kInventedArgument,
                         fmt::format("{}: \"{}\" is {}, but is not due", gold.name, key, write_json(value)));
    }
  }
}

// Percentiles of the F1 over rows drawn with replacement.
void bootstrap(std::span<const RowScore> rows, uint64_t seed, Rate& rate) {
  if (rows.empty()) return;
  Random random(seed);
  std::vector<double> values(kResamples);
  for (double& value : values) {
    size_t right = 0, predicted = 0, gold = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const RowScore& row = rows[random.below(rows.size())];
      right += row.right;
      predicted += row.predicted;
      gold += row.gold;
    }
    value = f1(right, predicted, gold);
  }
  std::sort(values.begin(), values.end());
  rate.low = std::min(values[kResamples / 40], rate.value);
  rate.high = std::max(values[kResamples - 1 - kResamples / 40], rate.value);
}

}  // namespace

std::string_view failure_name(Failure failure) {
  constexpr std::array<std::string_view, kFailures> kNames = {
      "unparseable", "call when none was due", "no call when one was due", "unknown tool", "wrong count",
      "wrong tool",  "missing argument",       "invented argument",        "wrong type",   "wrong value"};
  return kNames[static_cast<size_t>(failure)];
}

bool same_argument(const Json& gold, const Json& predicted) {
  if (gold.is_string() && predicted.is_string()) {
    const auto& a = gold.get_ref<const std::string&>();
    const auto& b = predicted.get_ref<const std::string&>();
    return a == b || fold_case(a) == fold_case(b);
  }
  if (gold.is_array() && predicted.is_array()) {
    return gold.size() == predicted.size() && std::equal(gold.begin(), gold.end(), predicted.begin(), same_argument);
  }
  if (gold.is_object() && predicted.is_object()) {
    if (gold.size() != predicted.size()) return false;
    const auto& members = gold.get_ref<const Json::object_t&>();
    return std::all_of(members.begin(), members.end(), [&](const auto& member) {
      const auto other = predicted.find(member.first);
      return other != predicted.end() && same_argument(member.second, *other);
    });
  }
  return same_json(gold, predicted);
}

RowScore score_row(std::span<const Call> gold, const ParsedAnswer& answer, std::span<const Tool> tools) {
  const std::vector<Call>& calls = answer.calls;
  RowScore row;
  row.due = !gold.empty();
  row.called = !calls.empty();
  row.names_right = std::equal(gold.begin(), gold.end(), calls.begin(), calls.end(),
                               [](const Call& a, const Call& b) { return a.name == b.name; });
  const auto gold_triples = triples(gold);
  const auto predicted_triples = triples(calls);
  row.gold = gold_triples.size();
  row.predicted = predicted_triples.size();
  row.right = common(gold_triples, predicted_triples);

  std::vector<std::pair<Failure, std::string>> found;
  for (const std::string& problem : answer.problems) found.emplace_back(Failure::kUnparseable, problem);
  if (gold.empty() && !calls.empty()) {
    found.emplace_back(Failure::kFalseCall, fmt::format("{} was called, nothing is due", calls.front().name));
  } else if (!gold.empty() && calls.empty()) {
    found.emplace_back(Failure::kMissedCall, fmt::format("nothing was called, {} is due", gold.front().name));
  } else if (!gold.empty()) {
    for (const Call& call : calls) {
      if (find_tool(tools, call.name) == nullptr) {
        found.emplace_back(Failure::kUnknownTool, fmt::format("there is no tool \"{}\"", call.name));
      }
    }
    if (calls.size() != gold.size()) {
      found.emplace_back(Failure::kWrongCount,
                         fmt::format("{} calls were made, {} are due", calls.size(), gold.size()));
    }
    for (size_t i = 0; i < std::min(calls.size(), gold.size()); ++i) {
      if (calls[i].name == gold[i].name) {
        compare_arguments(gold[i], calls[i], found);
      } else {
        found.emplace_back(Failure::kWrongTool, fmt::format("{} was called, {} is due", calls[i].name, gold[i].name));
      }
    }
  }
  for (auto& [failure, detail] : found) {
    if (!row.failure || failure < *row.failure) row.failure = failure;
    row.details.push_back(std::move(detail));
  }
  row.exact = !row.failure.has_value();
  return row;
}

// Wilson, 1927: the interval of a share that stays sensible near 0 and 1 and for few rows.
Rate wilson(size_t hits, size_t total, double value_when_empty) {
  Rate rate;
  rate.hits = hits;
  rate.total = total;
  rate.value = value_when_empty;
  if (total == 0) return rate;
  constexpr double z = 1.959963984540054;
  const double n = static_cast<double>(total);
  const double p = static_cast<double>(hits) / n;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  rate.value = p;
  rate.low = hits == 0 ? 0 : std::max(0.0, centre - half);
  rate.high = hits == total ? 1 : std::min(1.0, centre + half);
  return rate;
}

Score summarize(std::span<const RowScore> rows, uint64_t seed) {
  Score score;
  score.rows = rows.size();
  size_t exact = 0, due = 0, names = 0, missed = 0, unwanted = 0, right = 0, predicted = 0, gold = 0;
  for (const RowScore& row : rows) {
    exact += row.exact;
    due += row.due;
    names += row.due && row.names_right;
    missed += row.due && !row.called;
    unwanted += !row.due && row.called;
    right += row.right;
    predicted += row.predicted;
    gold += row.gold;
    if (row.failure) ++score.failures[static_cast<size_t>(*row.failure)];
  }
  score.exact = wilson(exact, rows.size(), 0);
  score.name_accuracy = wilson(names, due, 1);
  score.missed_calls = wilson(missed, due, 0);
  score.false_calls = wilson(unwanted, rows.size() - due, 0);
  score.argument_f1.value = f1(right, predicted, gold);
  bootstrap(rows, seed, score.argument_f1);
  return score;
}

Json score_to_json(const Score& score) {
  Json json = {{"rows", score.rows}};
  Json intervals = Json::object();
  const auto put = [&](const char* name, const Rate& rate) {
    json[name] = rate.value;
    intervals[name] = {rate.low, rate.high};
  };
  put("exact", score.exact);
  put("name_accuracy", score.name_accuracy);
  put("argument_f1", score.argument_f1);
  put("false_calls", score.false_calls);
  put("missed_calls", score.missed_calls);
  json["failures"] = Json::object();
  for (size_t i = 0; i < kFailures; ++i) {
    if (score.failures[i] > 0) json["failures"][std::string(failure_name(static_cast<Failure>(i)))] = score.failures[i];
  }
  json["intervals"] = std::move(intervals);
  return json;
}

}  // namespace thimble
