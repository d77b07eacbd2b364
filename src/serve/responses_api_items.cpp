#include "serve/responses_api_items.h"

#include <fmt/core.h>

#include <map>

#include "serve/fields.h"
#include "serve/service.h"

namespace thimble {
namespace {

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  throw ApiError(400, fmt::format("{}: {}", place, what), place);
}

std::string required_text(Fields& fields, std::string_view name) {
  auto text = fields.text(name);
  if (!text) refuse(fields.place(name), "is required");
  return std::move(*text);
}

// A string, or parts of which each is text; as parts of `type`.
Json read_parts(const Json& content, const std::string& place, const char* type) {
  const auto part_of = [&](std::string text) {
    Json part{{"type", type}, {"text", std::move(text)}};
    if (part["type"] == "output_text") part["annotations"] = Json::array();
    return part;
  };
  if (content.is_string()) return Json::array({part_of(content.get<std::string>())});
  if (!content.is_array()) refuse(place, "must be a string or a list of parts");
  Json out = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    Fields part(content[i], fmt::format("{}[{}]", place, i));
    const std::string given = part.text("type").value_or("");
    if (given == "refusal") {
      out.push_back({{"type", "refusal"}, {"refusal", required_text(part, "refusal")}});
    } else if (given == "input_text" || given == "output_text" || given == "text") {
      out.push_back(part_of(required_text(part, "text")));
      part.accept({"annotations", "logprobs", "prompt_cache_breakpoint"});
    } else {
      refuse(part.place("type"), fmt::format("'{}' can't be read by a text model; send input_text", given));
    }
    part.finish();
  }
  return out;
}

std::string id_of(Fields& item, std::string_view prefix) {
  auto id = item.text("id").value_or("");
  return id.empty() ? new_id(prefix) : id;
}

Json read_message(Fields& item) {
  const auto role = item.word("role", {"user", "system", "developer", "assistant"});
  if (!role) refuse(item.place("role"), "is required");
  const bool own = *role == "assistant";
  Json out{{"id", id_of(item, "msg_")},
           {"type", "message"},
           {"status", "completed"},
           {"role", *role},
           {"content", read_parts(item.require("content"), item.place("content"), own ? "output_text" : "input_text")}};
  item.accept({"phase"});
  return out;
}

Json read_call(Fields& item) {
  std::string arguments = required_text(item, "arguments");
  if (arguments.empty()) arguments = "{}";
  std::string reason;
  const auto parsed = try_parse_json(arguments, &reason);
  if (!parsed || !parsed->is_object())
    refuse(item.place("arguments"),
           fmt::format("must be the JSON text of an object{}{}", reason.empty() ? "" : ": ", reason));
  Json out{{"id", id_of(item, "fc_")},
           {"type", "function_call"},
           {"status", "completed"},
           {"call_id", required_text(item, "call_id")},
           {"name", required_text(item, "name")},
           {"arguments", arguments}};
  item.accept({"caller"});
  return out;
}

Json read_output(Fields& item) {
  Json out{{"id", id_of(item, "fc_")},
           {"type", "function_call_output"},
           {"status", "completed"},
           {"call_id", required_text(item, "call_id")}};
  const Json& output = item.require("output");
  out["output"] = output.is_string() ? output : read_parts(output, item.place("output"), "input_text");
  item.accept({"caller", "name"});
  return out;
}

Json read_reasoning(Fields& item) {
  const auto list = [&](std::string_view name) {
    const Json* given = item.array(name);
    return given != nullptr ? *given : Json::array();
  };
  Json out{
      {"id", id_of(item, "rs_")}, {"type", "reasoning"}, {"summary", list("summary")}, {"content", list("content")}};
  item.accept({"encrypted_content"});
  return out;
}

Json read_item(const Json& value, const std::string& place, const ResponseStore& store, const std::string& owner) {
  Fields item(value, place);
  const std::string type = item.text("type").value_or(item.find("role") != nullptr ? "message" : "");
  Json out;
  if (type == "message")
    out = read_message(item);
  else if (type == "function_call")
    out = read_call(item);
  else if (type == "function_call_output")
    out = read_output(item);
  else if (type == "reasoning")
    out = read_reasoning(item);
  else if (type == "item_reference") {
    const std::string id = required_text(item, "id");
    const auto known = store.find_item(id, owner);
    if (!known) refuse(item.place("id"), fmt::format("no item '{}' is kept here; send the item itself", id));
    out = *known;
  } else {
    refuse(
        item.place("type"),
        fmt::format("'{}' is none of: message, function_call, function_call_output, reasoning, item_reference", type));
  }
  item.accept({"status"});
  item.finish();
  return out;
}

std::string text_of(const Json& parts) {
  if (parts.is_string()) return parts.get<std::string>();
  std::string out;
  for (const Json& part : parts) out += part.value(part["type"] == "refusal" ? "refusal" : "text", "");
  return out;
}

}  // namespace

Json read_input_items(const Json& input, const ResponseStore& store, const std::string& owner) {
  if (input.is_string()) return read_input_items(Json::array({{{"role", "user"}, {"content", input}}}), store, owner);
  if (!input.is_array() || input.empty()) refuse("input", "must be a string or a list of at least one item");
  Json out = Json::array();
  for (size_t i = 0; i < input.size(); ++i)
    out.push_back(read_item(input[i], fmt::format("input[{}]", i), store, owner));
  return out;
}

std::vector<Turn> turns_of_items(const Json& items) {
  std::vector<Turn> turns;
  std::map<std::string, std::string> names;  // of the functions, by the ids of their calls
  for (const Json& item : items) {
    const std::string type = item["type"];
    if (type == "message") {
      const std::string role = item["role"];
      turns.push_back({role == "developer" ? "system" : role, text_of(item["content"])});
    } else if (type == "function_call") {
      if (turns.empty() || turns.back().role != "assistant") turns.push_back({"assistant", ""});
      const auto arguments = try_parse_json(item["arguments"].get<std::string>(), nullptr);
      // Cut off by max_output_tokens, in a stored response.
      if (!arguments || !arguments->is_object())
        refuse("previous_response_id", fmt::format("the call '{}' was cut off; ask again with a larger "
                                                   "max_output_tokens",
                                                   item["call_id"].get<std::string>()));
      turns.back().calls.push_back({item["name"].get<std::string>(), *arguments});
      names[item["call_id"].get<std::string>()] = item["name"].get<std::string>();
    } else if (type == "function_call_output") {
      const std::string id = item["call_id"];
      const auto name = names.find(id);
      if (name == names.end())
        refuse("input", fmt::format("No tool call found for function call output with call_id {}.", id));
      Turn turn{"tool", text_of(item["output"])};
      turn.name = name->second;
      turn.call_id = id;
      turns.push_back(std::move(turn));
    }
  }
  if (turns.empty()) refuse("input", "holds nothing to answer to");
  if (turns.back().role == "assistant")
    refuse("input", "the last item is the assistant's own; end with what it should answer to");
  return turns;
}

}  // namespace thimble
