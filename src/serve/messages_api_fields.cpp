#include "serve/messages_api_fields.h"

#include <fmt/core.h>

#include <map>

#include "serve/chat_fields.h"

namespace thimble {
namespace {

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  throw ApiError(400, fmt::format("{}: {}", place, what), place);
}

std::string at(const std::string& place, size_t index) { return fmt::format("{}[{}]", place, index); }

std::string block_type(Fields& block) {
  const auto type = block.text("type");
  if (!type) refuse(block.place("type"), "is required");
  return *type;
}

[[noreturn]] void refuse_block(const Fields& block, const std::string& type) {
  refuse(block.place("type"), fmt::format("'{}' can't be read by a text model here; send text", type));
}

std::string read_text_block(Fields& block) {
  const auto text = block.text("text");
  if (!text) refuse(block.place("text"), "is required");
  block.accept({"cache_control", "citations"});
  block.finish();
  return *text;
}

// A string, or blocks of which each is text.
std::string read_text(const Json& value, const std::string& place) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) refuse(place, "must be a string or a list of blocks");
  std::string out;
  for (size_t i = 0; i < value.size(); ++i) {
    Fields block(value[i], at(place, i));
    if (const auto type = block_type(block); type != "text") refuse_block(block, type);
    out += read_text_block(block);
  }
  return out;
}

// The conversation as turns. Results find the calls that they answer by their ids.
class Conversation {
 public:
  void read(const Json& message_json, const std::string& place) {
    Fields message(message_json, place);
    const auto role = message.word("role", {"user", "assistant", "system"});
    if (!role) refuse(message.place("role"), "is required");
    const Json& content = message.require("content");
    const std::string content_place = message.place("content");
    message.finish();
    if (content.is_string() || *role == "system")
      turns.push_back({*role, read_text(content, content_place)});
    else if (!content.is_array())
      refuse(content_place, "must be a string or a list of blocks");
    else if (*role == "user")
      read_user(content, content_place);
    else
      read_assistant(content, content_place);
  }

  std::vector<Turn> turns;

 private:
  void read_user(const Json& content, const std::string& place) {
    bool in_text = false;  // texts that follow each other are one turn
    for (size_t i = 0; i < content.size(); ++i) {
      Fields block(content[i], at(place, i));
      const std::string type = block_type(block);
      if (type == "tool_result") {
        turns.push_back(read_result(block));
        in_text = false;
      } else if (type == "text") {
        if (!in_text) turns.push_back({"user", ""});
        turns.back().content += read_text_block(block);
        in_text = true;
      } else {
        refuse_block(block, type);
      }
    }
    if (content.empty()) refuse(place, "must hold at least one block");
  }

  Turn read_result(Fields& block) {
    Turn turn{"tool", ""};
    turn.call_id = block.text("tool_use_id").value_or("");
    const auto call = names_.find(turn.call_id);
    if (call == names_.end())
      refuse(block.place("tool_use_id"), fmt::format("there is no tool_use '{}' before this result", turn.call_id));
    turn.name = call->second;
    // The model has no other way to know.
    if (block.boolean("is_error").value_or(false)) turn.content = "Error: ";
    if (const Json* content = block.find("content")) turn.content += read_text(*content, block.place("content"));
    block.accept({"cache_control"});
    block.finish();
    return turn;
  }

  void read_assistant(const Json& content, const std::string& place) {
    Turn turn{"assistant", ""};
    for (size_t i = 0; i < content.size(); ++i) {
      Fields block(content[i], at(place, i));
      const std::string type = block_type(block);
      if (type == "text") {
        turn.content += read_text_block(block);
      } else if (type == "tool_use") {
        const auto id = block.text("id"), name = block.text("name");
        if (!id) refuse(block.place("id"), "is required");
        if (!name) refuse(block.place("name"), "is required");
        block.require("input");
        turn.calls.push_back({*name, *block.object("input")});
        names_[*id] = *name;
        block.accept({"cache_control", "caller"});
        block.finish();
      } else if (type == "thinking" || type == "redacted_thinking") {
        // What led to an earlier answer is not shown again, as the templates of reasoning models have it.
        block.accept({"thinking", "signature", "data", "cache_control"});
        block.finish();
      } else {
        refuse_block(block, type);
      }
    }
    turns.push_back(std::move(turn));
  }

  std::map<std::string, std::string> names_;  // of the tools, by the ids of their calls
};

std::vector<Tool> read_message_tools(const Json& list) {
  Json functions = Json::array();
  for (size_t i = 0; i < list.size(); ++i) {
    Fields tool(list[i], at("tools", i));
    if (const auto type = tool.text("type").value_or("custom"); type != "custom")
      refuse(tool.place("type"),
             fmt::format("'{}' is a tool of Anthropic's own; describe yours with an input_schema", type));
    Json function{{"name", tool.require("name")}};
    if (const auto text = tool.text("description")) function["description"] = *text;
    function["parameters"] = tool.require("input_schema");
    tool.accept({"cache_control", "strict", "eager_input_streaming"});  // calls fit the schema in any case
    tool.finish();
    functions.push_back(std::move(function));
  }
  return read_tools(functions, "tools");
}

void read_message_choice(const Json& value, GenerationRequest& out) {
  Fields choice(value, "tool_choice");
  const auto type = choice.word("type", {"auto", "any", "tool", "none"});
  if (!type) refuse("tool_choice.type", "is required");
  if (*type == "none") out.calls = CallMode::kForbidden;
  if (*type == "any" || *type == "tool") out.calls = CallMode::kRequired;
  if (*type == "tool") {
    out.only_tool = choice.text("name").value_or("");
    if (out.only_tool.empty()) refuse("tool_choice.name", "is required");
  }
  out.parallel_calls = !choice.boolean("disable_parallel_tool_use").value_or(false);
  choice.finish();
}

void read_format(const Json& value, const std::string& place, GenerationRequest& out) {
  Fields format(value, place);
  if (!format.word("type", {"json_schema"})) refuse(format.place("type"), "is required");
  out.text_schema = format.require("schema");
  format.finish();
}

bool read_thinking(const Json& value) {
  Fields thinking(value, "thinking");
  const auto type = thinking.word("type", {"enabled", "adaptive", "disabled"});
  if (!type) refuse("thinking.type", "is required");
  thinking.integer("budget_tokens", 1, kMostTokens);  // max_tokens bounds thinking and answer together
  const auto display = thinking.word("display", {"summarized", "omitted"});
  thinking.finish();
  return *type != "disabled" && display != "omitted";
}

}  // namespace

MessagesRequest read_messages_request(const Json& json, bool counting) {
  Fields body(json);
  MessagesRequest request;
  GenerationRequest& out = request.generation;
  out.model = body.text("model").value_or("");
  const Json& messages = body.require("messages");
  if (!messages.is_array() || messages.empty()) refuse("messages", "must be a list of at least one message");
  Conversation conversation;
  if (const Json* system = body.find("system")) conversation.turns.push_back({"system", read_text(*system, "system")});
  for (size_t i = 0; i < messages.size(); ++i) conversation.read(messages[i], at("messages", i));
  out.turns = std::move(conversation.turns);
  if (out.turns.back().role == "assistant")
    refuse("messages",
           "the last message is the assistant's own; beginnings of answers are not continued here, end "
           "with what it should answer to");
  if (const Json* tools = body.array("tools")) out.tools = read_message_tools(*tools);
  if (const Json* choice = body.find("tool_choice")) read_message_choice(*choice, out);
  if (const auto most = body.integer("max_tokens", 1, kMostTokens)) {
    out.how.max_tokens = static_cast<int>(*most);
    out.max_tokens_given = true;
  } else if (!counting) {
    refuse("max_tokens", "is required");
  }
  if (const Json* stop = body.find("stop_sequences")) out.how.stop = read_stop_list(*stop, "stop_sequences");
  if (const Json* config = body.object("output_config")) {
    Fields fields(*config, "output_config");
    if (const Json* format = fields.find("format")) read_format(*format, "output_config.format", out);
    fields.accept({"effort"});
    fields.finish();
  }
  if (const Json* format = body.find("output_format")) read_format(*format, "output_format", out);
  if (const Json* thinking = body.find("thinking")) request.thinking = read_thinking(*thinking);
  read_sampler(body, out);
  out.stream = body.boolean("stream").value_or(false);
  body.accept({"metadata", "service_tier", "cache_control", "inference_geo"});
  body.finish();
  return request;
}

}  // namespace thimble
