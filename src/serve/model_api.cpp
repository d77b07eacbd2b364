#include <fmt/chrono.h>
#include <fmt/core.h>

#include <ctime>

#include "core/error.h"
#include "serve/chat_fields.h"
#include "serve/service.h"

namespace thimble {
namespace {

// What OpenAI's clients read of a model, and what Anthropic's do.
Json model_to_json(const ServedModel& model) {
  Json out{{"id", model.name},
           {"object", "model"},
           {"created", model.created},
           {"owned_by", "thimble"},
           {"max_model_len", model.base->engine->context()},
           {"type", "model"},
           {"display_name", model.name},
           {"created_at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(model.created)))},
           {"lifecycle", "active"},
           {"max_input_tokens", model.base->engine->context()}};
  if (model.adapter) {
    out["root"] = model.base->name;
    out["parent"] = model.base->name;
  }
  if (model.manifest) {
    out["description"] = model.manifest->description;
    out["tools"] = model.manifest->tools.size();
  }
  return out;
}

}  // namespace

void models(Service& service, const Exchange& exchange) {
  Exchange reply = exchange;
  constexpr std::string_view kList = "/v1/models";
  const std::string& path = exchange.request().path;
  if (path.size() > kList.size() + 1)
    return reply.respond(json_response(model_to_json(*service.shelf.find(path.substr(kList.size() + 1)))));
  Json data = Json::array();
  for (const auto& model : service.shelf.list())
    if (exchange.key() == nullptr || exchange.key()->may_use(model->name)) data.push_back(model_to_json(*model));
  const Json first = data.empty() ? Json() : data.front()["id"], last = data.empty() ? Json() : data.back()["id"];
  reply.respond(json_response(
      {{"object", "list"}, {"data", std::move(data)}, {"has_more", false}, {"first_id", first}, {"last_id", last}}));
}

void tokenize(Service& service, const Exchange& exchange) {
  const Json json = parse_body(exchange.request().body);
  Fields body(json);
  const auto model = service.shelf.find(body.text("model").value_or(""));
  check_model(exchange, *model);
  const Tokenizer& tokenizer = model->base->tokenizer;
  std::vector<int32_t> tokens;
  const bool pieces = body.boolean("with_pieces").value_or(false);
  EncodeOptions options{.add_special = body.boolean("add_special").value_or(false),
                        .parse_special = body.boolean("parse_special").value_or(true)};
  if (const Json* messages = body.find("messages")) {  // as vLLM: what a conversation becomes
    std::optional<std::vector<Tool>> tools;
    if (const Json* given = body.array("tools")) tools = read_tools(*given, "tools");
    tokens = model->style.prompt(read_messages(*messages, "messages"), {}, tools ? &*tools : nullptr);
  } else {
    const char* name = body.find("content") != nullptr ? "content" : "prompt";
    body.require(name);
    tokens = tokenizer.encode(body.text(name).value_or(""), options);
  }
  body.finish();
  Json list = Json::array();
  for (const int32_t token : tokens)
    list.push_back(pieces ? Json{{"id", token}, {"piece", tokenizer.token_bytes(token)}} : Json(token));
  Exchange(exchange).respond(json_response({{"tokens", std::move(list)},
                                            {"count", tokens.size()},
                                            {"max_model_len", model->base->engine->context()}}));
}

void detokenize(Service& service, const Exchange& exchange) {
  const Json json = parse_body(exchange.request().body);
  Fields body(json);
  const auto model = service.shelf.find(body.text("model").value_or(""));
  check_model(exchange, *model);
  const Json* list = body.array("tokens");
  if (list == nullptr) throw ApiError(400, "tokens: is required", "tokens");
  body.finish();
  std::vector<int32_t> tokens;
  for (const Json& token : *list) {
    const bool known = token.is_number_integer() && token.get<int64_t>() >= 0 &&
                       token.get<int64_t>() < model->base->tokenizer.vocab_size();
    if (!known) throw ApiError(400, fmt::format("tokens: {} is no token of this model", token.dump()), "tokens");
    tokens.push_back(token.get<int32_t>());
  }
  const std::string text = model->base->tokenizer.decode(tokens);
  Exchange(exchange).respond(json_response({{"content", text}, {"prompt", text}}));  // llama.cpp's name and vLLM's
}

void apply_template(Service& service, const Exchange& exchange) {
  const GenerationRequest request = read_chat_request(parse_body(exchange.request().body));
  const PreparedGeneration prepared = prepare(service.shelf, request, service.limits);
  check_model(exchange, *prepared.model);
  const auto& prompt = prepared.requests.front().prompt;
  Exchange(exchange).respond(
      json_response({{"prompt", prepared.model->base->tokenizer.decode(prompt)}, {"tokens", prompt.size()}}));
}

void adapters(Service& service, const Exchange& exchange) {
  constexpr std::string_view kList = "/v1/adapters";
  Exchange reply = exchange;
  const HttpRequest& request = exchange.request();
  check_all_models(exchange, "open or close adapters");
  if (request.method == "DELETE") {
    const std::string name = request.path.size() > kList.size() + 1 ? request.path.substr(kList.size() + 1) : "";
    if (name.empty()) throw ApiError(400, "the path must name the adapter: DELETE /v1/adapters/NAME");
    if (!service.shelf.find(name)->adapter) throw ApiError(400, fmt::format("'{}' is not an adapter", name), "name");
    service.shelf.close(name);
    return reply.respond(json_response({{"id", name}, {"object", "model"}, {"deleted", true}}));
  }
  const Json json = parse_body(request.body);
  Fields body(json);
  const auto name = body.text("name"), path = body.text("path");
  if (!name || name->empty()) throw ApiError(400, "name: is required", "name");
  if (!path || path->empty()) throw ApiError(400, "path: is required: an adapter's folder on the server", "path");
  const auto base = body.text("base").value_or("");
  body.finish();
  service.shelf.open_adapter(*name, *path, base);
  reply.respond(json_response(model_to_json(*service.shelf.find(*name))));
}

}  // namespace thimble
