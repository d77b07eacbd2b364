#include "data/argument_order.h"

#include <algorithm>
#include <map>

#include "data/fold.h"

namespace thimble {
namespace {

using Keys = std::vector<std::string>;
// How many calls have the first's value before the second's in the request.
using Before = std::map<std::pair<std::string, std::string>, size_t>;

size_t in_order(const Keys& keys, const Before& before) {
  size_t count = 0;
  for (size_t i = 0; i < keys.size(); ++i)
    for (size_t j = i + 1; j < keys.size(); ++j)
      if (const auto found = before.find({keys[i], keys[j]}); found != before.end()) count += found->second;
  return count;
}

// Moves one key at a time as long as that puts more pairs in order.
Keys better_order(Keys keys, const Before& before) {
  const Keys properties = keys;
  size_t best = in_order(keys, before);
  for (bool moved = true; moved;) {
    moved = false;
    for (const std::string& key : properties)
      for (size_t place = 0; place < keys.size(); ++place) {
        Keys other = keys;
        std::erase(other, key);
        other.insert(other.begin() + static_cast<ptrdiff_t>(place), key);
        const size_t count = in_order(other, before);
        if (count <= best) continue;
        best = count;
        keys = other;
        moved = true;
      }
  }
  return keys;
}

}  // namespace

std::vector<ArgumentOrder> argument_orders(std::span<const Row> rows, std::span<const Tool> tools) {
  std::map<std::string, Before> before_of;
  for (const Row& row : rows) {
    if (row.tools) continue;
    const std::string query = fold_case(row.query());
    for (const Call& call : row.calls) {
      std::vector<std::pair<size_t, std::string>> places;
      for (const auto& [key, value] : call.arguments.items()) {
        const std::string text = fold_case(value.is_string() ? value.get<std::string>() : value.dump());
        const size_t place = text.empty() ? std::string::npos : query.find(text);
        if (place != std::string::npos) places.emplace_back(place, key);
      }
      for (const auto& [a, x] : places)
        for (const auto& [b, y] : places)
          if (a < b) ++before_of[call.name][{x, y}];
    }
  }
  std::vector<ArgumentOrder> out;
  for (const Tool& tool : tools) {
    const Before& before = before_of[tool.name];
    const auto properties = tool.parameters.find("properties");
    if (before.empty() || properties == tool.parameters.end() || !properties->is_object()) continue;
    Keys keys;
    for (const auto& [key, schema] : properties->items()) keys.push_back(key);
    ArgumentOrder order{tool.name, better_order(keys, before), 0, in_order(keys, before), 0};
    order.in_better_order = in_order(order.better, before);
    for (const auto& [pair, count] : before) order.pairs += count;
    out.push_back(std::move(order));
  }
  return out;
}

}  // namespace thimble
