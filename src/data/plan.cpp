#include "data/plan.h"

#include <fmt/format.h>

#include "core/error.h"

namespace thimble {

std::string plan_of(const Row& row, std::span<const Tool> tools) {
  std::string plan;
  for (const Call& call : row.calls) {
    if (!plan.empty()) plan += "; ";
    plan += call.name;
    const char* before = ": ";
    for (const auto& [name, value] : call.arguments.items()) {
      plan += before + name;
      before = ", ";
    }
  }
  if (!row.calls.empty()) return plan;
  if (row.intent.empty()) throw Error("there are no calls, so the plan needs an \"intent\": what is meant, in a word");
  const Tool* tool = row.missing.empty() ? nullptr : find_tool(tools, row.intent);
  if (tool == nullptr) return row.intent + ": no tool";
  plan = row.intent + ": ";
  // The missing one is the first in the tool's order, so that those before it are given.
  for (const std::string& name : required_arguments(*tool)) {
    if (name == row.missing) break;
    plan += name + ", ";
  }
  return plan + "no " + row.missing;
}

std::pair<std::string_view, std::string_view> split_plan(std::string_view text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return {text, {}};
  return {text.substr(0, end), text.substr(end + 1)};
}

}  // namespace thimble
