#include "serve/responses_api_fields.h"

#include <fmt/core.h>

#include "serve/chat_fields.h"
#include "serve/responses_api_items.h"

namespace thimble {
namespace {

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  throw ApiError(400, fmt::format("{}: {}", place, what), place);
}

// Functions in this API's flat form; what they are in the response.
Json read_response_tools(const Json& list, GenerationRequest& out) {
  Json functions = Json::array(), echo = Json::array();
  for (size_t i = 0; i < list.size(); ++i) {
    Fields tool(list[i], fmt::format("tools[{}]", i));
    const std::string type = tool.text("type").value_or("");
    if (type != "function")
      refuse(tool.place("type"), fmt::format("'{}' is not offered here; give functions, and run them yourself", type));
    Json function{{"name", tool.require("name")}};
    if (const auto description = tool.text("description")) function["description"] = *description;
    if (const Json* parameters = tool.object("parameters")) function["parameters"] = *parameters;
    tool.boolean("strict");  // calls fit the schema in any case
    tool.finish();
    functions.push_back(std::move(function));
  }
  out.tools = read_tools(functions, "tools");
  for (const Tool& tool : *out.tools)
    echo.push_back({{"type", "function"},
                    {"name", tool.name},
                    {"description", tool.description},
                    {"parameters", tool.parameters},
                    {"strict", true}});
  return echo;
}

Json read_text_options(const Json& value, GenerationRequest& out) {
  Fields text(value, "text");
  Json echo{{"format", {{"type", "text"}}}};
  if (const Json* given = text.find("format")) {
    Fields format(*given, "text.format");
    const auto type = format.word("type", {"text", "json_object", "json_schema"});
    if (!type) refuse("text.format.type", "is required");
    if (*type == "json_object") out.text_schema = Json{{"type", "object"}};
    if (*type == "json_schema") {
      out.text_schema = format.require("schema");
      format.require("name");
      format.accept({"description", "strict"});
    }
    format.finish();
    echo["format"] = *given;
  }
  text.accept({"verbosity"});
  text.finish();
  return echo;
}

void read_include(const Json& list, GenerationRequest& out) {
  for (const Json& one : list) {
    if (one == "message.output_text.logprobs") out.how.log_probs = true;
    // Reasoning is given as it is: there is nothing encrypted to add.
    else if (one != "reasoning.encrypted_content")
      refuse("include", fmt::format("{} belongs to what is not offered here; leave it out", one.dump()));
  }
}

// Fields with one value that says what is done here anyway.
void read_fixed(Fields& body) {
  if (body.boolean("background").value_or(false))
    refuse("background", "is not offered here; wait for the answer, or stream it");
  if (body.word("truncation", {"disabled", "auto"}) == "auto")
    refuse("truncation", "'auto' is not offered here; leave out old items yourself");
  for (const char* name : {"conversation", "prompt", "context_management", "moderation"})
    if (body.find(name) != nullptr) refuse(name, "is not offered here; leave it out");
  if (const Json* options = body.object("stream_options")) {
    Fields fields(*options, "stream_options");
    fields.accept({"include_obfuscation"});
    fields.finish();
  }
}

}  // namespace

ResponsesRequest read_responses_request(const Json& json, const ResponseStore& store, const std::string& owner) {
  Fields body(json);
  ResponsesRequest request;
  GenerationRequest& out = request.generation;
  out.model = body.text("model").value_or("");

  request.items = read_input_items(body.require("input"), store, owner);
  const auto previous = body.text("previous_response_id");
  if (previous) {
    const auto stored = store.find(*previous, owner);
    if (stored == nullptr)
      throw ApiError(400, fmt::format("Previous response with id '{}' not found.", *previous), "previous_response_id",
                     "previous_response_not_found");
    Json items = stored->items;
    for (const Json* more : {&stored->response["output"], &std::as_const(request.items)})
      items.insert(items.end(), more->begin(), more->end());
    request.items = std::move(items);
  }
  out.turns = turns_of_items(request.items);
  const auto instructions = body.text("instructions");
  if (instructions) out.turns.insert(out.turns.begin(), Turn{"system", *instructions});

  const Json* tools = body.array("tools");
  const Json tools_echo = tools != nullptr ? read_response_tools(*tools, out) : Json::array();
  const Json* choice = body.find("tool_choice");
  if (choice != nullptr) read_tool_choice(*choice, out);
  out.parallel_calls = body.boolean("parallel_tool_calls").value_or(true);
  const Json* text = body.object("text");
  const Json text_echo = read_text_options(text != nullptr ? *text : Json::object(), out);

  const auto most = body.integer("max_output_tokens", 1, kMostTokens);
  if (most) {
    out.how.max_tokens = static_cast<int>(*most);
    out.max_tokens_given = true;
  }
  read_sampler(body, out);
  if (const Json* stop = body.find("stop"))
    out.how.stop = read_stop_list(stop->is_string() ? Json::array({*stop}) : *stop, "stop");
  if (const Json* include = body.array("include")) read_include(*include, out);
  if (const auto top = body.integer("top_logprobs", 0, kMostTopLogProbs); top && *top > 0) {
    out.how.log_probs = true;
    out.how.top_log_probs = static_cast<int>(*top);
  }
  out.stream = body.boolean("stream").value_or(false);
  request.store = body.boolean("store").value_or(true);
  read_fixed(body);
  const Json* metadata = body.object("metadata");
  const Json* reasoning = body.object("reasoning");
  body.accept({"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
               "service_tier", "max_tool_calls"});
  body.finish();

  request.echo = {{"instructions", instructions ? Json(*instructions) : Json()},
                  {"max_output_tokens", most ? Json(*most) : Json()},
                  {"metadata", metadata != nullptr ? *metadata : Json::object()},
                  {"parallel_tool_calls", out.parallel_calls},
                  {"previous_response_id", previous ? Json(*previous) : Json()},
                  {"reasoning", reasoning != nullptr ? *reasoning : Json{{"effort", nullptr}, {"summary", nullptr}}},
                  {"store", request.store},
                  {"text", text_echo},
                  {"tool_choice", choice != nullptr ? *choice : Json("auto")},
                  {"tools", tools_echo},
                  {"top_logprobs", out.how.top_log_probs},
                  {"top_p", out.how.sampling.top_p},
                  {"truncation", "disabled"},
                  {"background", false}};
  return request;
}

}  // namespace thimble
