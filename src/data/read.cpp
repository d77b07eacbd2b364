#include "data/read.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "core/error.h"
#include "core/mapped_file.h"

namespace thimble {
namespace {

class RowReader {
 public:
  RowReader(std::string_view where, int number) : where_(fmt::format("{}: row {}", where, number)), number_(number) {}

  Row read(std::string_view line) {
    const Json object = parse_json(line, where_);
    if (!object.is_object()) fail("a row must be a JSON object");
    Row row;
    row.number = number_;
    if (object.contains("messages") || object.contains("prompt") || object.contains("chosen")) {
      refuse_unknown(object,
                     {"id", "messages", "prompt", "chosen", "completion", "rejected", "label", "weight", "tools",
                      "kind", "missing", "intent"},
                     "");
      read_conversation(object, row);
      if (object.contains("tools") && !object["tools"].is_null()) read_tools(object["tools"], row);
    } else if (object.contains("query")) {
      refuse_unknown(object,
                     {"id", "query", "calls", "answer", "rejected", "label", "weight", "kind", "missing", "intent"},
                     "");
      row.turns.push_back({"user", text(object, "query", "", true), {}, "", ""});
      if (!object.contains("calls")) fail("\"calls\" is missing; write [] where nothing should be called");
      if (!object["calls"].is_array()) fail("\"calls\" must be a list");
      for (const Json& call : object["calls"]) row.calls.push_back(read_call(call, "calls"));
      row.answer = text(object, "answer", "", false);
    } else {
      fail("a row needs \"query\" and \"calls\", or \"messages\"");
    }
    if (object.contains("rejected") && object["rejected"].is_object()) row.rejected = read_rejected(object["rejected"]);
    if (object.contains("rejected") && !row.rejected) {
      fail("\"rejected\" must be an object with \"calls\" or \"answer\", or beside \"chosen\" a list of messages");
    }
    if (object.contains("label")) {
      if (!object["label"].is_boolean()) fail("\"label\" must be true or false");
      if (row.rejected) fail("there are a rejected answer and a label; leave one out");
      row.label = object["label"].get<bool>();
    }
    if (object.contains("id") && object["id"].is_number_integer()) {
      row.id = object["id"].dump();
    } else {
      row.id = text(object, "id", "", false);
    }
    if (object.contains("weight")) {
      row.weight = number(object["weight"], "\"weight\"");
      if (!(row.weight > 0 && row.weight <= 1e6))
        fail("\"weight\" must be above 0, at most 1000000; leave the row out where it is not to count");
    }
    row.kind = text(object, "kind", "", false);
    row.missing = text(object, "missing", "", false);
    row.intent = text(object, "intent", "", false);
    return row;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw Error(fmt::format("{}: {}.", where_, what)); }

  void refuse_unknown(const Json& object, std::initializer_list<std::string_view> known, std::string_view place) const {
    for (const auto& [key, value] : object.get_ref<const Json::object_t&>()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        fail(fmt::format("{}unknown key {}; known are {}", place, write_json_string(key), fmt::join(known, ", ")));
      }
    }
  }

  std::string text(const Json& object, const char* key, std::string_view place, bool required) const {
    const auto found = object.find(key);
    if (found == object.end() || (found->is_null() && !required)) {
      if (required) fail(fmt::format("{}\"{}\" is missing", place, key));
      return "";
    }
    if (!found->is_string()) fail(fmt::format("{}\"{}\" must be a string", place, key));
    return found->get<std::string>();
  }

  double number(const Json& value, const std::string& what) const {
    if (!value.is_number()) fail(what + " must be a number");
    return value.get<double>();
  }

  Call read_call(const Json& value, const std::string& place) const {
    if (!value.is_object()) fail(place + ": a call must be an object with \"name\" and \"arguments\"");
    const Json* call = &value;
    if (value.contains("function")) {  // OpenAI's wrapping
      refuse_unknown(value, {"id", "type", "function", "index"}, place + ": ");
      if (value.contains("type") && value["type"] != "function") fail(place + ": \"type\" must be \"function\"");
      call = &value["function"];
      if (!call->is_object()) fail(place + ": \"function\" must be an object");
    }
    refuse_unknown(*call, {"name", "arguments"}, place + ": ");
    Call result{text(*call, "name", place + ": ", true), Json::object()};
    const auto arguments = call->find("arguments");
    if (arguments == call->end()) fail(place + ": \"arguments\" is missing; write {} where there are none");
    result.arguments = arguments->is_string()
                           ? parse_json(arguments->get_ref<const std::string&>(), where_ + ": " + place + ": arguments")
                           : *arguments;
    if (!result.arguments.is_object()) fail(place + ": \"arguments\" must be an object");
    return result;
  }

  Turn read_turn(const Json& message, const std::string& place) const {
    if (!message.is_object()) fail(place + ": a message must be an object");
    refuse_unknown(message, {"role", "content", "tool_calls", "tool_call_id", "name", "weight"}, place + ": ");
    Turn turn;
    turn.role = text(message, "role", place + ": ", true);
    const bool assistant = turn.role == "assistant";
    if (turn.role != "system" && turn.role != "user" && turn.role != "tool" && !assistant) {
      fail(fmt::format("{}: unknown role {}; known are system, user, assistant, tool", place,
                       write_json_string(turn.role)));
    }
    if (message.contains("tool_calls") && !message["tool_calls"].is_null()) {
      if (!assistant) fail(place + ": only the assistant has \"tool_calls\"");
      if (!message["tool_calls"].is_array()) fail(place + ": \"tool_calls\" must be a list");
      for (const Json& call : message["tool_calls"]) turn.calls.push_back(read_call(call, place + ": tool_calls"));
    }
    turn.content = text(message, "content", place + ": ", !assistant || turn.calls.empty());
    turn.name = text(message, "name", place + ": ", false);
    turn.call_id = text(message, "tool_call_id", place + ": ", false);
    if (message.contains("weight")) {
      if (!assistant) fail(place + ": only the assistant's messages have a \"weight\"");
      turn.weight = number(message["weight"], place + ": \"weight\"");
      if (!(turn.weight >= 0 && turn.weight <= 1)) fail(place + ": \"weight\" must be from 0 to 1");
    }
    if (!turn.call_id.empty() && turn.role != "tool") fail(place + ": only a tool message has \"tool_call_id\"");
    return turn;
  }

  // What a row without "rejected" would say of it: all of it is optional, so that any wrong answer can be written.
  RejectedAnswer read_rejected(const Json& object) const {
    refuse_unknown(object, {"calls", "answer", "plan"}, "rejected: ");
    RejectedAnswer rejected;
    if (object.contains("calls")) {
      if (!object["calls"].is_array()) fail("rejected: \"calls\" must be a list");
      for (const Json& call : object["calls"]) rejected.calls.push_back(read_call(call, "rejected: calls"));
    }
    rejected.text = text(object, "answer", "rejected: ", false);
    rejected.plan = text(object, "plan", "rejected: ", false);
    if (rejected.plan.find('\n') != std::string::npos) fail("rejected: a \"plan\" is one line");
    return rejected;
  }

  // "messages" with the answer as their last; or a prompt, and what follows it under a name of its own.
  void read_conversation(const Json& object, Row& row) const {
    if (object.contains("messages") && object.contains("prompt"))
      fail("there are \"messages\" and a \"prompt\"; leave one out");
    if (object.contains("chosen") && object.contains("completion"))
      fail("there are a \"chosen\" answer and a \"completion\"; leave one out");
    const char* before = object.contains("prompt") ? "prompt" : "messages";
    const char* answer = object.contains("chosen") ? "chosen" : "completion";
    if (!object.contains(answer)) {
      if (object.contains("prompt")) fail("there is a \"prompt\", but neither \"chosen\" nor \"completion\"");
      return read_messages(object["messages"], row);
    }
    const auto whole = [&](const char* key) {
      Json messages = object.contains(before) ? object[before] : Json::array();
      if (!messages.is_array()) fail(fmt::format("\"{}\" must be a list of messages", before));
      if (!object[key].is_array()) fail(fmt::format("\"{}\" must be a list of messages", key));
      for (const Json& message : object[key]) messages.push_back(message);
      return messages;
    };
    read_messages(whole(answer), row);
    if (!object.contains("chosen")) return;
    if (!object.contains("rejected")) fail("there is a \"chosen\" answer, but no \"rejected\" one");
    if (object["rejected"].is_object()) return;
    Row other;
    read_messages(whole("rejected"), other);
    if (other.turns != row.turns) fail("\"chosen\" and \"rejected\" answer different conversations");
    row.rejected = {std::move(other.calls), std::move(other.answer), ""};
  }

  void read_messages(const Json& messages, Row& row) const {
    if (!messages.is_array()) fail("\"messages\" must be a list");
    for (const Json& message : messages) {
      row.turns.push_back(read_turn(message, fmt::format("message {}", row.turns.size() + 1)));
      if (row.turns.back().role == "system" && row.turns.size() > 1) fail("a system message must be the first");
    }
    if (row.turns.size() < 2 || row.turns.back().role != "assistant") {
      fail("the last message must be the assistant's, which is the answer to learn");
    }
    row.calls = std::move(row.turns.back().calls);
    row.answer = std::move(row.turns.back().content);
    row.answer_weight = messages.back().contains("weight") ? row.turns.back().weight : 1;
    row.turns.pop_back();
    if (row.turns.back().role != "user" && row.turns.back().role != "tool") {
      fail("the message before the answer must be the user's or a tool's");
    }
    if (row.query().empty()) fail("there is no user message with text");
  }

  void read_tools(const Json& tools, Row& row) const {
    const std::string where = where_ + ": tools";
    row.tools =
        tools.is_string() ? parse_tools(tools.get_ref<const std::string&>(), where) : tools_from_json(tools, where);
  }

  std::string where_;
  int number_;
};

}  // namespace

std::vector<Row> parse_rows(std::string_view text, std::string_view where) {
  if (text.starts_with("\xef\xbb\xbf")) {
    throw Error(fmt::format("{}: row 1: the file begins with a byte order mark; save it as plain UTF-8.", where));
  }
  std::vector<Row> rows;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    rows.push_back(RowReader(where, number).read(line));
  }
  return rows;
}

std::vector<Row> read_rows(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  auto rows = parse_rows({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.string());
  if (rows.empty()) throw Error(fmt::format("{}: there are no rows in it.", file.string()));
  return rows;
}

}  // namespace thimble
