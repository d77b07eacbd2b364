#include <fmt/core.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "cli/commands.h"
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

}  // namespace

int run_command(const RunOptions& options) {
  Session session = open_session(options.model);
  const auto tokens = session.engine->tokenizer().encode(prompt_text(options.prompt),
                                                         {.add_special = true, .parse_special = true});
  if (!options.logits.empty()) {
    write_logits(session, tokens, options.logits);
    return kOk;
  }
  const Interrupt interrupt;
  GenerateRequest request;
  request.prompt = tokens;
  request.max_tokens = options.generate.max_tokens;
  request.sampling = options.generate.sampling;
  request.stop = options.generate.stop;
  request.adapter = session.adapter;
  request.ignore_end = options.ignore_end;
  request.on_text = [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    return !Interrupt::pressed();
  };
  const auto answers = session.engine->run({std::move(request)});
  if (is_terminal(stdout)) fmt::print("\n");
  const Answer& a = answers.front();
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
