#include "serve/generation.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "core/error.h"

namespace thimble {
namespace {

// Whether the model was taught all of these tools, so that they need not stand in its prompt.
bool taught(const ServedModel& model, std::span<const Tool> tools) {
  return model.manifest && std::all_of(tools.begin(), tools.end(), [&](const Tool& tool) {
           const Tool* known = find_tool(model.manifest->tools, tool.name);
           return known != nullptr && same_json(known->parameters, tool.parameters);
         });
}

std::vector<Tool> offered(const ServedModel& model, const GenerationRequest& request) {
  std::vector<Tool> tools = request.tools ? *request.tools : model.style.tools();
  if (request.only_tool.empty()) return tools;
  const Tool* named = find_tool(tools, request.only_tool);
  if (named == nullptr)
    throw ApiError(400, fmt::format("tool_choice: there is no tool '{}' among those of the request", request.only_tool),
                   "tool_choice");
  return {*named};
}

std::vector<int32_t> prompt_of(const ServedModel& model, const GenerationRequest& request) {
  try {
    if (!request.tools || request.tools->empty()) return model.style.prompt(request.turns);
    if (!model.style.tools_in_prompt() && taught(model, *request.tools)) return model.style.prompt(request.turns);
    const auto system = model.manifest ? model.manifest->system : std::nullopt;
    return model.style.with(true, model.style.plan(), system, *request.tools).prompt(request.turns);
  } catch (const Error& e) {
    throw ApiError(400, fmt::format("messages: {}", e.what()), "messages");
  }
}

bool ends_thinking(const Tokenizer& tokenizer, std::span<const int32_t> prompt) {
  const std::string tail = tokenizer.decode(prompt.last(std::min<size_t>(prompt.size(), 8)));
  const size_t last = tail.find_last_not_of(" \n");
  return last != std::string::npos && std::string_view(tail).substr(0, last + 1).ends_with("<think>");
}

}  // namespace

PreparedGeneration prepare(const ModelShelf& shelf, const GenerationRequest& request, const GenerationLimits& limits) {
  PreparedGeneration out;
  out.model = shelf.find(request.model);
  out.choices = request.choices;
  out.most_s = limits.most_s;
  const ServedModel& model = *out.model;
  const bool chat = !request.prompts;

  ConstraintOptions options;
  options.mode = request.calls;
  options.most_calls = request.parallel_calls ? ConstraintOptions{}.most_calls : 1;
  options.text_schema = request.text_schema ? &*request.text_schema : nullptr;
  options.plan = chat && model.style.plan() && !request.text_schema;
  const std::vector<Tool> tools = chat ? offered(model, request) : std::vector<Tool>();
  if (tools.empty() && request.calls == CallMode::kRequired)
    throw ApiError(400, "tool_choice: a call is required, but no tools are given", "tool_choice");
  if (request.text_schema || !tools.empty()) {
    try {
      out.constraint = model.base->constraints->get(tools, options);
    } catch (const Error& e) {
      throw ApiError(400, e.what(), request.text_schema ? "response_format" : "tools");
    }
  }
  out.form.plan = options.plan;
  out.form.calls = !tools.empty() && request.calls != CallMode::kForbidden;

  std::vector<std::vector<int32_t>> prompts;
  if (chat) prompts.push_back(prompt_of(model, request));
  else prompts = *request.prompts;
  const int64_t context = model.base->engine->context();
  for (auto& prompt : prompts) {
    if (prompt.empty()) throw ApiError(400, "prompt: is empty; give at least one token", "prompt");
    const auto size = static_cast<int64_t>(prompt.size());
    const int64_t wanted = request.max_tokens_given ? request.how.max_tokens : 1;
    if (size + wanted > context)
      throw ApiError(400,
                     fmt::format("This model's maximum context length is {} tokens, but {} were asked for ({} in the "
                                 "{}, {} for the answer). Shorten one or the other.",
                                 context, size + wanted, size, chat ? "messages" : "prompt", wanted),
                     chat ? "messages" : "prompt", "context_length_exceeded");
    GenerateRequest one = request.how;
    if (!request.max_tokens_given) one.max_tokens = limits.default_max_tokens;
    // What was taught is asked for as it was proven: greedily.
    if (!request.temperature_given) one.sampling.temperature = model.manifest ? 0.0f : 1.0f;
    one.adapter = model.adapter_number();
    one.constraint = out.constraint.get();
    if (model.manifest && request.calls == CallMode::kAuto && !tools.empty())
      one.call_threshold = model.manifest->call_threshold;
    try {
      check(one.sampling, model.base->prepared->model().config.vocab);
    } catch (const Error& e) {
      throw ApiError(400, e.what());
    }
    out.form.thinking = chat && !out.constraint && ends_thinking(model.base->tokenizer, prompt);
    one.prompt = std::move(prompt);
    out.requests.push_back(std::move(one));
  }
  return out;
}

RunningGeneration generate(EngineThread& thread, PreparedGeneration prepared, GenerationListener listener) {
  struct Shared {
    PreparedGeneration prepared;
    GenerationListener listener;
    std::map<int, AnswerStream> streams;
    AnswerStream& stream(int index) { return streams.try_emplace(index, prepared.form).first->second; }
  };
  const auto shared = std::make_shared<Shared>(Shared{std::move(prepared), std::move(listener), {}});
  std::vector<EngineThread::Ticket> tickets;
  int first = 0;
  for (const GenerateRequest& request : shared->prepared.requests) {
    EngineThread::Work work;
    work.engine = shared->prepared.model->base->engine;
    work.request = request;
    work.choices = shared->prepared.choices;
    work.keeps = shared;
    work.on_text = [s = shared.get(), first](int choice, std::string_view piece, const Answer& so_far) {
      const auto events = s->stream(first + choice).feed(piece);
      if (!events.empty()) s->listener.on_events(first + choice, events, so_far);
    };
    work.on_done = [s = shared.get(), first](int choice, const Answer& answer) {
      s->listener.on_done(first + choice, s->stream(first + choice).finish(), answer);
    };
    work.most_s = shared->prepared.most_s;
    work.on_refused = [s = shared.get()](const std::string& why, bool late) {
      s->listener.on_error(late ? ApiError(408, why, "", "timeout") : ApiError(400, why));
    };
    tickets.push_back(thread.submit(std::move(work)));
    first += shared->prepared.choices;
  }
  return {thread, std::move(tickets)};
}

}  // namespace thimble
