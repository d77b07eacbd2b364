#include "calls/hermes.h"

#include <fmt/format.h>

namespace thimble {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

void read_call(const Json& value, size_t number, ParsedAnswer& answer) {
  const auto problem = [&](std::string_view what) {
    answer.problems.push_back(fmt::format("Call {}: {}.", number, what));
  };
  if (!value.is_object()) return problem("it is not a JSON object");
  const auto name = value.find("name");
  if (name == value.end() || !name->is_string()) return problem("\"name\" is missing or not a string");
  Call call{name->get<std::string>(), Json::object()};
  if (const auto arguments = value.find("arguments"); arguments != value.end()) {
    if (arguments->is_string()) {
      std::string reason;
      auto parsed = try_parse_json(arguments->get_ref<const std::string&>(), &reason);
      if (!parsed || !parsed->is_object()) return problem("\"arguments\" is a string that holds no JSON object");
      call.arguments = std::move(*parsed);
    } else if (arguments->is_object()) {
      call.arguments = *arguments;
    } else {
      return problem("\"arguments\" is not a JSON object");
    }
  }
  for (const auto& [key, member] : value.items()) {
    if (key != "name" && key != "arguments") return problem(fmt::format("unknown key \"{}\"", key));
  }
  answer.calls.push_back(std::move(call));
}

}  // namespace

std::string render_call(const Call& call) {
  return fmt::format("{}\n{{\"name\": {}, \"arguments\": {}}}\n{}", kCallOpen, write_json_string(call.name),
                     write_json(call.arguments), kCallClose);
}

std::string render_calls(std::span<const Call> calls) {
  std::string text;
  for (const Call& call : calls) {
    if (!text.empty()) text += '\n';
    text += render_call(call);
  }
  return text;
}

std::string render_answer(std::string_view text, std::span<const Call> calls) {
  std::string answer(text);
  if (!text.empty() && !calls.empty()) answer += '\n';
  return answer + render_calls(calls);
}

ParsedAnswer parse_answer(std::string_view text) {
  ParsedAnswer answer;
  std::string outside;
  size_t blocks = 0;
  while (true) {
    const size_t open = text.find(kCallOpen);
    outside += text.substr(0, open);
    if (open == std::string_view::npos) break;
    text.remove_prefix(open + kCallOpen.size());
    // A string argument may hold the closing tag: take the first one that leaves whole JSON before it.
    size_t close = text.find(kCallClose);
    std::string reason;
    auto value = try_parse_json(trim(text.substr(0, close)), &reason);
    size_t later = close;
    for (int tries = 0; !value && later != std::string_view::npos && tries < 4; ++tries) {
      later = text.find(kCallClose, later + 1);
      if ((value = try_parse_json(trim(text.substr(0, later)), nullptr))) close = later;
    }
    ++blocks;
    if (!value) {
      answer.problems.push_back(fmt::format("Call {}: not usable JSON: {}.", blocks, reason));
    } else if (value->is_array()) {
      for (const Json& item : *value) read_call(item, blocks, answer);
    } else {
      read_call(*value, blocks, answer);
    }
    if (close == std::string_view::npos) break;
    text.remove_prefix(close + kCallClose.size());
  }
  answer.text = trim(outside);
  return answer;
}

std::string hermes_system(std::string_view system, std::span<const Tool> tools) {
  std::string text(system);
  if (tools.empty()) return text;
  if (!text.empty()) text += "\n\n";
  text +=
      "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
      "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
  text += tools_to_text(tools);
  text +=
      "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
      "<tool_call></tool_call> XML tags:\n<tool_call>\n"
      "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";
  return text;
}

}  // namespace thimble
