#include "serve/chat_fields.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <random>

#include "core/error.h"

namespace thimble {
namespace {

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  throw ApiError(400, fmt::format("{}: {}", place, what), place);
}

std::vector<TokenBias> read_logit_bias(const Json& biases) {
  std::vector<TokenBias> out;
  for (const auto& [token, bias] : biases.items()) {
    int32_t id = 0;
    const char* end = token.data() + token.size();
    const auto [stop, error] = std::from_chars(token.data(), end, id);
    if (error != std::errc() || stop != end) refuse("logit_bias", fmt::format("'{}' is not a token's id", token));
    if (!bias.is_number() || !(std::abs(bias.get<double>()) <= 100))
      refuse("logit_bias", fmt::format("the bias of token {} must be a number from -100 to 100", token));
    out.push_back({id, bias.get<float>()});
  }
  return out;
}

// A message's content: a string, or parts of which each is text.
std::string read_content(const Json& value, const std::string& place) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) refuse(place, "must be a string or a list of parts");
  std::string out;
  for (size_t i = 0; i < value.size(); ++i) {
    Fields part(value[i], fmt::format("{}[{}]", place, i));
    const auto type = part.text("type");
    if (type == "refusal") {
      out += part.text("refusal").value_or("");
    } else if (type == "text") {
      out += part.text("text").value_or("");
      part.accept({"cache_control", "annotations"});
    } else {
      refuse(part.place("type"), fmt::format("'{}' can't be read by a text model; send text", type.value_or("")));
    }
    part.finish();
  }
  return out;
}

Call read_call(const Json& value, const std::string& place) {
  Fields call(value, place);
  call.accept({"id", "index"});
  call.word("type", {"function"});
  Fields function(call.require("function"), call.place("function"));
  Call out{function.text("name").value_or(""), Json::object()};
  if (out.name.empty()) refuse(function.place("name"), "is required");
  const auto text = function.text("arguments").value_or("{}");
  std::string reason;
  auto arguments = try_parse_json(text.empty() ? "{}" : text, &reason);
  if (!arguments || !arguments->is_object())
    refuse(function.place("arguments"), fmt::format("must be the JSON text of an object{}{}",
                                                    reason.empty() ? "" : ": ", reason));
  out.arguments = std::move(*arguments);
  function.finish();
  call.finish();
  return out;
}

void read_response_format(const Json& value, GenerationRequest& out) {
  Fields format(value, "response_format");
  const auto type = format.word("type", {"text", "json_object", "json_schema"});
  if (!type) refuse("response_format.type", "is required");
  if (*type == "json_object") out.text_schema = Json{{"type", "object"}};
  if (*type == "json_schema") {
    Fields schema(format.require("json_schema"), "response_format.json_schema");
    schema.accept({"name", "description", "strict"});  // what is said is held to the schema in any case
    out.text_schema = schema.require("schema");
    schema.finish();
  }
  format.finish();
}

}  // namespace

std::vector<std::string> read_stop_list(const Json& list, const std::string& place) {
  if (!list.is_array() || list.size() > 16) refuse(place, "must be a list of at most 16 strings");
  std::vector<std::string> out;
  for (const Json& one : list) {
    if (!one.is_string()) refuse(place, "must be a list of strings");
    out.push_back(one.get<std::string>());
  }
  if (std::find(out.begin(), out.end(), "") != out.end()) refuse(place, "an empty string stands everywhere");
  return out;
}

void read_tool_choice(const Json& value, GenerationRequest& out) {
  if (value.is_string()) {
    const auto word = value.get<std::string>();
    if (word == "none") out.calls = CallMode::kForbidden;
    else if (word == "required" || word == "any") out.calls = CallMode::kRequired;
    else if (word != "auto") refuse("tool_choice", fmt::format("'{}' is none of: none, auto, required", word));
    return;
  }
  Fields choice(value, "tool_choice");
  const auto type = choice.text("type").value_or("");
  if (type == "allowed_tools")
    refuse("tool_choice.type", "allowed_tools is not supported; send only the tools that are allowed");
  if (type != "function") refuse("tool_choice.type", fmt::format("'{}' must be function", type));
  if (const Json* nested = choice.object("function")) {
    Fields function(*nested, "tool_choice.function");
    out.only_tool = function.text("name").value_or("");
    function.finish();
  } else {
    out.only_tool = choice.text("name").value_or("");
  }
  choice.finish();
  if (out.only_tool.empty()) refuse("tool_choice.function.name", "is required");
  out.calls = CallMode::kRequired;
}

void read_sampler(Fields& body, GenerationRequest& out) {
  constexpr double kMost = 1e9;
  SamplingOptions& s = out.how.sampling;
  const auto real = [&](std::string_view name, double least, double most, float& value) {
    if (const auto given = body.number(name, least, most)) value = static_cast<float>(*given);
  };
  const auto whole = [&](std::string_view name, int64_t least, int64_t most, int& value) {
    if (const auto given = body.integer(name, least, most)) value = static_cast<int>(*given);
  };
  if (const auto temperature = body.number("temperature", 0, 100)) {
    s.temperature = static_cast<float>(*temperature);
    out.temperature_given = true;
  }
  real("top_p", 0, 1, s.top_p);
  s.top_p = std::max(s.top_p, 1e-6f);  // 0 is the likeliest token alone
  real("presence_penalty", -2, 2, s.presence_penalty);
  real("frequency_penalty", -2, 2, s.frequency_penalty);
  whole("top_k", -1, kMostTokens, s.top_k);
  s.top_k = std::max(s.top_k, 0);
  real("min_p", 0, 1, s.min_p);
  real("typical_p", 0, 1, s.typical);
  real("repeat_penalty", 0, kMost, s.repeat_penalty);
  real("repetition_penalty", 0, kMost, s.repeat_penalty);
  whole("repeat_last_n", 0, kMostTokens, s.repeat_window);
  real("dry_multiplier", 0, kMost, s.dry_multiplier);
  real("dry_base", 0, kMost, s.dry_base);
  whole("dry_allowed_length", 0, kMostTokens, s.dry_allowed_length);
  whole("dry_penalty_last_n", 0, kMostTokens, s.dry_window);
  if (const Json* breakers = body.array("dry_sequence_breakers")) {
    s.dry_breakers.clear();
    for (const Json& one : *breakers) {
      if (!one.is_string()) refuse("dry_sequence_breakers", "must be a list of strings");
      s.dry_breakers.push_back(one.get<std::string>());
    }
  }
  const auto seed = body.integer("seed", -(int64_t{1} << 53), int64_t{1} << 53);
  s.seed = seed ? static_cast<uint64_t>(*seed) : std::random_device{}();
  if (const Json* biases = body.object("logit_bias")) s.logit_bias = read_logit_bias(*biases);
  whole("min_tokens", 0, kMostTokens, out.how.min_tokens);
  out.how.ignore_end = body.boolean("ignore_eos").value_or(false);
}

void read_sampling(Fields& body, GenerationRequest& out) {
  read_sampler(body, out);
  if (const Json* stop = body.find("stop"))
    out.how.stop = read_stop_list(stop->is_string() ? Json::array({*stop}) : *stop, "stop");
  out.choices = static_cast<int>(body.integer("n", 1, 128).value_or(1));
  out.stream = body.boolean("stream").value_or(false);
  if (const Json* options = body.object("stream_options")) {
    if (!out.stream) refuse("stream_options", "is only allowed where stream is true");
    Fields fields(*options, "stream_options");
    out.include_usage = fields.boolean("include_usage").value_or(false);
    fields.accept({"include_obfuscation"});
    fields.finish();
  }
}

std::vector<Turn> read_messages(const Json& list, const std::string& place) {
  if (!list.is_array() || list.empty()) refuse(place, "must be a list of at least one message");
  std::vector<Turn> turns;
  for (size_t i = 0; i < list.size(); ++i) {
    Fields message(list[i], fmt::format("{}[{}]", place, i));
    Turn turn;
    turn.role = message.word("role", {"system", "developer", "user", "assistant", "tool"}).value_or("");
    if (turn.role.empty()) refuse(message.place("role"), "is required");
    if (turn.role == "developer") turn.role = "system";
    if (const Json* calls = message.array("tool_calls")) {
      if (turn.role != "assistant") refuse(message.place("tool_calls"), "only the assistant calls");
      for (size_t c = 0; c < calls->size(); ++c)
        turn.calls.push_back(read_call((*calls)[c], fmt::format("{}[{}]", message.place("tool_calls"), c)));
    }
    if (const Json* content = message.find("content")) turn.content = read_content(*content, message.place("content"));
    else if (turn.role != "assistant") refuse(message.place("content"), "is required");
    turn.name = message.text("name").value_or("");
    turn.call_id = message.text("tool_call_id").value_or("");
    if (turn.role == "assistant")  // what answers have beside what is said; clients send them back whole
      message.accept({"refusal", "annotations", "audio", "function_call", "reasoning_content", "reasoning"});
    message.finish();
    turns.push_back(std::move(turn));
  }
  if (turns.back().role == "assistant")
    refuse(place, "the last message is the assistant's own; end with what it should answer to");
  return turns;
}

std::vector<Tool> read_tools(const Json& list, const std::string& place) {
  try {
    return tools_from_json(list, place);
  } catch (const Error& e) {
    throw ApiError(400, e.what(), place);
  }
}

GenerationRequest read_chat_request(const Json& json) {
  Fields body(json);
  GenerationRequest out;
  out.model = body.text("model").value_or("");
  out.turns = read_messages(body.require("messages"), "messages");
  if (const Json* tools = body.array("tools")) out.tools = read_tools(*tools, "tools");
  if (const Json* choice = body.find("tool_choice")) read_tool_choice(*choice, out);
  out.parallel_calls = body.boolean("parallel_tool_calls").value_or(true);
  if (const Json* format = body.find("response_format")) read_response_format(*format, out);
  read_sampling(body, out);
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    const auto given = body.integer(name, 1, kMostTokens);
    if (!given) continue;
    out.how.max_tokens = static_cast<int>(*given);
    out.max_tokens_given = true;
  }
  out.how.log_probs = body.boolean("logprobs").value_or(false);
  if (const auto top = body.integer("top_logprobs", 0, kMostTopLogProbs)) {
    if (!out.how.log_probs) refuse("top_logprobs", "needs logprobs: true");
    out.how.top_log_probs = static_cast<int>(*top);
  }
  if (const Json* modalities = body.array("modalities"))
    if (*modalities != Json::array({"text"})) refuse("modalities", "text is all that a text model writes");
  body.accept({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
               "prompt_cache_retention", "verbosity", "reasoning_effort", "prediction"});
  body.finish();
  return out;
}

}  // namespace thimble
