#include <fmt/core.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "calls/json.h"
#include "cli/commands.h"
#include "cli/generate_options.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "core/error.h"
#include "formats/safetensors.h"

namespace thimble {
namespace {

std::string prompt_text(const std::string& given) {
  if (given != "-") return given;
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

void write_logits(Session& session, std::span<const int32_t> tokens, const std::filesystem::path& path) {
  const auto vocab = static_cast<int64_t>(session.engine->model().model().config.vocab);
  const auto count = static_cast<int64_t>(tokens.size());
  TensorSource source{"logits", DType::kF32, {count, vocab}, [&](const WriteBytes& write) {
                        session.engine->logits(tokens, session.adapter,
                                               [&](int64_t, int64_t rows, const float* values) {
                                                 write(values, static_cast<size_t>(rows * vocab) * sizeof(float));
                                               });
                      }};
  TensorSource ids{"tokens", DType::kF32, {count}, [&](const WriteBytes& write) {
                     for (const int32_t token : tokens) {
                       const auto value = static_cast<float>(token);  // exact: vocabularies end far below 2^24
                       write(&value, sizeof value);
                     }
                   }};
  const TensorSource sources[] = {std::move(source), std::move(ids)};
  write_safetensors(path, sources);
  fmt::print(stderr, "{} positions x {} logits written to {}\n", count, vocab, path.string());
}

// A token's text may end inside a character, so its bytes are given too, as in OpenAI's API.
Json token_json(const Tokenizer& tokenizer, int32_t token, float log_prob) {
  const std::string& bytes = tokenizer.token_bytes(token);
  Json numbers = Json::array();
  for (const char byte : bytes) numbers.push_back(static_cast<uint8_t>(byte));
  return {{"id", token}, {"token", bytes}, {"bytes", std::move(numbers)}, {"logprob", log_prob}};
}

std::string answer_json(const Answer& a, const Tokenizer& tokenizer) {
  const char* const reasons[] = {"stop", "length", "cancelled"};  // as FinishReason
  const double decode = a.seconds - a.first_token_s;
  Json out{{"text", a.text},
           {"tokens", a.tokens},
           {"finish_reason", reasons[static_cast<size_t>(a.finish)]},
           {"prompt_tokens", a.prompt_tokens},
           {"cut_tokens", a.cut_tokens},
           {"cached_tokens", a.cached_tokens},
           {"first_token_seconds", a.first_token_s},
           {"seconds", a.seconds}};
  if (a.tokens.size() > 1 && decode > 0)
    out["tokens_per_second"] = static_cast<double>(a.tokens.size() - 1) / decode;
  if (!a.log_probs.empty()) {
    Json list = Json::array();
    for (size_t i = 0; i < a.tokens.size(); ++i) {
      Json entry = token_json(tokenizer, a.tokens[i], a.log_probs[i]);
      Json& top = entry["top_logprobs"] = Json::array();
      if (i < a.top_log_probs.size())
        for (const TokenLogProb& t : a.top_log_probs[i]) top.push_back(token_json(tokenizer, t.token, t.log_prob));
      list.push_back(std::move(entry));
    }
    out["logprobs"] = std::move(list);
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

int run_command(const RunOptions& options) {
  check_generate_options(options.generate);
  Session session = open_session(options.model);
  const auto tokens = session.engine->tokenizer().encode(prompt_text(options.prompt),
                                                         {.add_special = true, .parse_special = true});
  if (!options.logits.empty()) {
    write_logits(session, tokens, options.logits);
    return kOk;
  }
  const Interrupt interrupt;
  GenerateRequest request = generate_request(options.generate, session.engine->tokenizer());
  request.prompt = tokens;
  request.adapter = session.adapter;
  request.ignore_end = options.ignore_end;
  request.log_probs = options.log_probs.has_value();
  request.top_log_probs = options.log_probs.value_or(0);
  request.on_text = [&](std::string_view text, const Answer&) {
    if (!options.json) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
    return !Interrupt::pressed();
  };
  const auto answers = session.engine->run({std::move(request)});
  const Answer& a = answers.front();
  print_cut(a, options.generate);
  if (options.json)
    fmt::print("{}\n", answer_json(a, session.engine->tokenizer()));
  else if (is_terminal(stdout))
    fmt::print("\n");
  if (is_terminal(stderr)) {
    const double decode = a.seconds - a.first_token_s;
    fmt::print(stderr, "{}\n",
               styled(stderr, Style::kDim,
                      fmt::format("{} tokens read in {}, {} written at {:.1f} tokens/s", a.prompt_tokens,
                                  human_seconds(a.first_token_s), a.tokens.size(),
                                  decode > 0 ? static_cast<double>(a.tokens.size() - 1) / decode : 0.0)));
  }
  return a.finish == FinishReason::kCancelled ? kInterrupted : kOk;
}

}  // namespace thimble
