#include <fmt/core.h>

#include <memory>

#include "core/clock.h"
#include "core/error.h"
#include "serve/chat_fields.h"
#include "serve/reply.h"
#include "serve/service.h"

namespace thimble {
namespace {

struct CompletionRequest {
  GenerationRequest generation;
  std::vector<std::string> texts;  // of the prompts, where they were given as text
  std::string suffix;
  bool echo = false;
};

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  throw ApiError(400, fmt::format("{}: {}", place, what), place);
}

std::vector<int32_t> read_tokens(const Json& list) {
  std::vector<int32_t> out;
  for (const Json& token : list) {
    if (!token.is_number_integer()) refuse("prompt", "a list of tokens must hold whole numbers");
    out.push_back(token.get<int32_t>());
  }
  return out;
}

// A text, a list of texts, a list of tokens, or a list of such lists.
void read_prompt(const Json& prompt, CompletionRequest& out, std::vector<std::vector<int32_t>>& tokens) {
  if (prompt.is_string()) {
    out.texts.push_back(prompt.get<std::string>());
  } else if (!prompt.is_array() || prompt.empty()) {
    refuse("prompt", "must be a string, a list of strings, a list of tokens, or a list of those");
  } else if (prompt.front().is_number()) {
    tokens.push_back(read_tokens(prompt));
  } else {
    for (const Json& one : prompt) {
      if (one.is_string() && tokens.empty()) out.texts.push_back(one.get<std::string>());
      else if (one.is_array() && out.texts.empty()) tokens.push_back(read_tokens(one));
      else refuse("prompt", "must be all strings or all lists of tokens");
    }
  }
}

// Text before and behind the gap, in the order that the model's vocabulary names (Qwen 2.5 Coder, StarCoder, Code
// Llama's PSM: prefix, suffix, middle).
std::vector<int32_t> fill_in_prompt(const Tokenizer& tokenizer, const std::string& before, const std::string& behind) {
  static constexpr std::string_view kNames[][3] = {
      {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
      {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
      {"▁<PRE>", "▁<SUF>", "▁<MID>"},
  };
  for (const auto& names : kNames) {
    const auto prefix = tokenizer.id_of(names[0]);
    const auto suffix = tokenizer.id_of(names[1]);
    const auto middle = tokenizer.id_of(names[2]);
    if (!prefix || !suffix || !middle) continue;
    std::vector<int32_t> out{*prefix};
    const auto add = [&](const std::vector<int32_t>& tokens) { out.insert(out.end(), tokens.begin(), tokens.end()); };
    add(tokenizer.encode(before));
    out.push_back(*suffix);
    add(tokenizer.encode(behind));
    out.push_back(*middle);
    return out;
  }
  refuse("suffix", "this model has no tokens for filling in (such as <|fim_prefix|>); leave suffix out, or take a "
                   "model for code");
}

// OpenAI's older form: lists beside each other.
Json old_logprobs(const Tokenizer& tokenizer, const Answer& answer, size_t& told, size_t& offset) {
  Json out{{"tokens", Json::array()},
           {"token_logprobs", Json::array()},
           {"top_logprobs", Json::array()},
           {"text_offset", Json::array()}};
  for (; told < std::min(answer.tokens.size(), answer.log_probs.size()); ++told) {
    const std::string& text = tokenizer.token_bytes(answer.tokens[told]);
    out["tokens"].push_back(text);
    out["token_logprobs"].push_back(answer.log_probs[told]);
    Json top = Json::object();
    if (told < answer.top_log_probs.size())
      for (const TokenLogProb& one : answer.top_log_probs[told]) top[tokenizer.token_bytes(one.token)] = one.log_prob;
    out["top_logprobs"].push_back(std::move(top));
    out["text_offset"].push_back(offset);
    offset += text.size();
  }
  return out;
}

class CompletionReply {
 public:
  CompletionReply(Exchange exchange, const CompletionRequest& request, std::shared_ptr<const ServedModel> model)
      : exchange_(std::move(exchange)),
        model_(std::move(model)),
        stream_(request.generation.stream),
        include_usage_(request.generation.include_usage),
        logprobs_(request.generation.how.log_probs || request.generation.how.top_log_probs > 0),
        per_prompt_(static_cast<size_t>(request.generation.choices)),
        choices_(request.generation.prompts->size() * per_prompt_),
        id_(new_id("cmpl-")),
        created_(unix_time()) {
    if (request.echo)
      for (size_t i = 0; i < choices_.size(); ++i) choices_[i].text = request.texts[i / per_prompt_];
  }

  const std::string& id() const { return id_; }
  std::vector<std::string> call_ids(int) const { return {}; }  // there are no calls here

  void events(int index, const std::vector<AnswerEvent>& events, const Answer& so_far) {
    Choice& choice = choices_[static_cast<size_t>(index)];
    std::string text;
    for (const AnswerEvent& event : events) text += event.text;
    if (!stream_) {
      choice.text += text;
      return;
    }
    if (!started_) exchange_.start(event_stream());
    started_ = true;
    if (!choice.begun) text = std::exchange(choice.text, "") + text;  // the echo
    choice.begun = true;
    exchange_.send(sse(chunk(index, text, nullptr, so_far)));
  }

  void done(int index, const std::vector<AnswerEvent>& last, const Answer& answer) {
    Choice& choice = choices_[static_cast<size_t>(index)];
    events(index, last, answer);
    usage_.add(answer, static_cast<size_t>(index) % per_prompt_ == 0);
    choice.finish = answer.finish == FinishReason::kLength ? "length" : "stop";
    if (stream_) exchange_.send(sse(chunk(index, "", choice.finish, answer)));
    else if (logprobs_) choice.logprobs = old_logprobs(model_->base->tokenizer, answer, choice.told, choice.offset);
    if (++done_ == choices_.size()) finish();
  }

  void failed(const ApiError& error) {
    if (done_ == choices_.size()) return;
    done_ = choices_.size();
    if (exchange_.respond_unless_begun(error_response(error))) return;
    exchange_.send(sse(error_to_json(error)));
    exchange_.end();
  }

 private:
  struct Choice {
    std::string text;
    Json logprobs = nullptr;
    size_t told = 0, offset = 0;
    const char* finish = "stop";
    bool begun = false;
  };

  Json frame() const {
    return {{"id", id_},
            {"object", "text_completion"},
            {"created", created_},
            {"model", model_->name},
            {"system_fingerprint", fmt::format("fp_{:.12}", model_->base->fingerprint)}};
  }

  Json chunk(int index, const std::string& text, const char* finish, const Answer& so_far) {
    Choice& choice = choices_[static_cast<size_t>(index)];
    Json out = frame();
    out["choices"] = Json::array({{{"text", text},
                                   {"index", index},
                                   {"logprobs", nullptr},
                                   {"finish_reason", finish != nullptr ? Json(finish) : Json()}}});
    if (logprobs_ && choice.told < so_far.log_probs.size())
      out["choices"][0]["logprobs"] = old_logprobs(model_->base->tokenizer, so_far, choice.told, choice.offset);
    if (include_usage_) out["usage"] = nullptr;
    return out;
  }

  void finish() {
    if (stream_) {
      if (include_usage_) {
        Json out = frame();
        out["choices"] = Json::array();
        out["usage"] = usage_.to_json();
        exchange_.send(sse(out));
      }
      exchange_.send("data: [DONE]\n\n");
      return exchange_.end();
    }
    Json out = frame();
    out["choices"] = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i)
      out["choices"].push_back({{"text", choices_[i].text},
                                {"index", i},
                                {"logprobs", std::move(choices_[i].logprobs)},
                                {"finish_reason", choices_[i].finish}});
    out["usage"] = usage_.to_json();
    exchange_.respond(json_response(out));
  }

  Exchange exchange_;
  std::shared_ptr<const ServedModel> model_;
  bool stream_, include_usage_, logprobs_;
  size_t per_prompt_;
  std::vector<Choice> choices_;
  std::string id_;
  int64_t created_;
  Usage usage_;
  size_t done_ = 0;
  bool started_ = false;
};

}  // namespace

void completions(Service& service, const Exchange& exchange) {
  const Json json = parse_body(exchange.request().body);
  Fields body(json);
  CompletionRequest request;
  GenerationRequest& generation = request.generation;
  generation.model = body.text("model").value_or("");
  std::vector<std::vector<int32_t>> tokens;
  read_prompt(body.require("prompt"), request, tokens);
  const auto suffix = body.text("suffix");
  request.echo = body.boolean("echo").value_or(false);
  if (request.echo && request.texts.empty()) refuse("echo", "needs a prompt that is text");
  if (request.echo && suffix) refuse("echo", "can't be had together with suffix");
  read_sampling(body, generation);
  generation.how.max_tokens = static_cast<int>(body.integer("max_tokens", 1, kMostTokens).value_or(16));  // OpenAI's
  generation.max_tokens_given = true;
  if (const auto best = body.integer("best_of", 1, 128); best && *best != generation.choices)
    refuse("best_of", "must be the same as n: answers are not chosen among here");
  if (const auto top = body.integer("logprobs", 0, kMostTopLogProbs)) {
    if (request.echo) refuse("logprobs", "can't be had together with echo");
    generation.how.log_probs = true;
    generation.how.top_log_probs = static_cast<int>(*top);
  }
  body.accept({"user"});
  body.finish();

  const Tokenizer& tokenizer = service.shelf.find(generation.model)->base->tokenizer;
  for (const std::string& text : request.texts)
    tokens.push_back(suffix ? fill_in_prompt(tokenizer, text, *suffix) : tokenizer.encode(text, {.add_special = true}));
  for (const auto& prompt : tokens)
    for (const int32_t token : prompt)
      if (token < 0 || token >= tokenizer.vocab_size())
        refuse("prompt",
               fmt::format("holds token {}, but the vocabulary ends at {}", token, tokenizer.vocab_size() - 1));
  generation.prompts = std::move(tokens);
  check_room(service, static_cast<int>(generation.prompts->size()) * generation.choices);
  PreparedGeneration prepared = prepare(service.shelf, generation, service.limits);
  if (generation.stream) show_life_of_stream(exchange);
  const auto reply = std::make_shared<CompletionReply>(exchange, request, prepared.model);
  reply_with(service, exchange, json, std::move(prepared), reply);
}

}  // namespace thimble
