#include "cli/generate_options.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

#include "cli/terminal.h"
#include "core/error.h"

namespace thimble {
namespace {

struct NamedBias {
  std::string token;  // an id or a text
  float bias = 0;
};

NamedBias read_bias(const std::string& given) {
  const size_t equals = given.rfind('=');
  NamedBias out;
  if (equals != std::string::npos && equals > 0) {
    out.token = given.substr(0, equals);
    const char* const end = given.data() + given.size();
    const char* number = given.data() + equals + 1;
    if (*number == '+') ++number;
    const auto [stop, error] = std::from_chars(number, end, out.bias);
    if (error == std::errc() && stop == end && out.bias >= -100 && out.bias <= 100) return out;
  }
  throw Error(
      fmt::format("--logit-bias {}: give TOKEN=BIAS, a token's id or text and a number between -100 and 100", given));
}

// The token with that id, or all that write that text: a vocabulary may have several for a byte.
std::vector<int32_t> tokens_of(const std::string& name, const Tokenizer& tokenizer) {
  int32_t id = 0;
  const char* const end = name.data() + name.size();
  if (const auto [stop, error] = std::from_chars(name.data(), end, id); error == std::errc() && stop == end)
    return {id};
  std::vector<int32_t> found;
  for (id = 0; id < tokenizer.vocab_size(); ++id)
    if (tokenizer.token_bytes(id) == name) found.push_back(id);
  if (found.empty())
    throw Error(fmt::format("--logit-bias: '{}' is {} tokens for this model; give the text of one token, or its id",
                            name, tokenizer.encode(name, {.parse_special = true}).size()));
  return found;
}

}  // namespace

void add_generate_options(CLI::App& app, GenerateOptions& o) {
  SamplingOptions& s = o.sampling;
  app.add_option("-n,--max-tokens", o.max_tokens, "most tokens to generate")->check(CLI::Range(1, 1 << 20));
  app.add_option("--min-tokens", o.min_tokens, "fewest tokens: none ends the answer before");
  app.add_option("--cut-prompt", o.cut_prompt,
                 "start or end: what goes of a prompt that leaves no room for the answer (default: it is refused)")
      ->check(CLI::IsMember({"start", "end"}));
  app.add_option("--stop", o.stop, "end before this text; may be given several times");
  app.add_option("-t,--temperature", s.temperature, "0: greedy; higher: more varied")->capture_default_str();
  app.add_flag_callback("--greedy", [&s] { s.temperature = 0; }, "always the most likely token");
  app.add_option("--seed", s.seed, "the same seed gives the same answer");
  app.add_option("--top-k", s.top_k, "only the k most likely tokens (0: off)");
  app.add_option("--typical", s.typical,
                 "only the tokens nearest to the expected surprise with this much probability "
                 "(1: off)");
  app.add_option("--top-p", s.top_p, "only the likeliest tokens with this much probability (1: off)");
  app.add_option("--min-p", s.min_p, "only tokens this likely, relative to the best (0: off)");
  app.add_option("--repeat-penalty", s.repeat_penalty, "logits of recent tokens are divided by this (1: off)");
  app.add_option("--repeat-window", s.repeat_window, "how many tokens are recent (0: all)")->capture_default_str();
  app.add_option("--presence-penalty", s.presence_penalty, "off the logits of tokens that the answer holds (0: off)");
  app.add_option("--frequency-penalty", s.frequency_penalty, "the same for each time that it holds them (0: off)");
  app.add_option("--dry-multiplier", s.dry_multiplier,
                 "off the logits of tokens that go on with a repetition (0: off)");
  app.add_option("--dry-base", s.dry_base, "how DRY's penalty grows with each repeated token")->capture_default_str();
  app.add_option("--dry-allowed-length", s.dry_allowed_length, "repeated tokens before DRY's penalty begins to grow")
      ->capture_default_str();
  app.add_option("--dry-window", s.dry_window, "how many tokens DRY looks back over (0: all)");
  app.add_option_function<std::vector<std::string>>(
         "--dry-breaker",
         [&s](const std::vector<std::string>& given) {
           s.dry_breakers = given == std::vector<std::string>{"none"} ? std::vector<std::string>{} : given;
         },
         "DRY's repetitions begin anew after this text; may be given several times; none: nowhere (default: line "
         "break, colon, double quote, asterisk)")
      ->allow_extra_args(false);
  app.add_option("--logit-bias", o.logit_bias,
                 "TOKEN=BIAS: added to the logit of a token, given as its id or text; "
                 "may be given several times")
      ->allow_extra_args(false);
}

void check_generate_options(const GenerateOptions& options) {
  check(options.sampling);
  for (const std::string& bias : options.logit_bias) read_bias(bias);
  if (options.min_tokens < 0 || options.min_tokens > options.max_tokens)
    throw Error(fmt::format("--min-tokens {}: must be between 0 and --max-tokens, which is {}", options.min_tokens,
                            options.max_tokens));
}

GenerateRequest generate_request(const GenerateOptions& options, const Tokenizer& tokenizer) {
  GenerateRequest request;
  request.max_tokens = options.max_tokens;
  request.min_tokens = options.min_tokens;
  request.stop = options.stop;
  if (options.cut_prompt == "start") request.overlong = Overlong::kCutStart;
  if (options.cut_prompt == "end") request.overlong = Overlong::kCutEnd;
  request.sampling = options.sampling;
  for (const std::string& given : options.logit_bias) {
    const NamedBias bias = read_bias(given);
    for (const int32_t token : tokens_of(bias.token, tokenizer))
      request.sampling.logit_bias.push_back({token, bias.bias});
  }
  check(request.sampling, tokenizer.vocab_size());
  return request;
}

void print_cut(const Answer& answer, const GenerateOptions& options) {
  if (answer.cut_tokens == 0) return;
  fmt::print(stderr, "{} the prompt's {} {} tokens were cut, as --cut-prompt says\n",
             styled(stderr, Style::kYellow, "note:"), options.cut_prompt == "start" ? "first" : "last",
             answer.cut_tokens);
}

}  // namespace thimble
