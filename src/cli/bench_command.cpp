#include <fmt/core.h>

#include <algorithm>

#include "calls/json.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "core/cpu.h"
#include "core/memory.h"
#include "core/thread_pool.h"

namespace thimble {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// Tokens of a fixed pseudo-text; every run begins with another one, so that nothing is found in the cache.
std::vector<int32_t> tokens_of(int count, int vocab, int salt) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i)
    out[static_cast<size_t>(i)] =
        static_cast<int32_t>((int64_t{7919} * (i + 1) + int64_t{104729} * (salt + 1)) % vocab);
  return out;
}

Answer generate(Session& session, std::vector<int32_t> prompt, int count) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = count;
  request.ignore_end = true;
  request.adapter = session.adapter;
  std::vector<GenerateRequest> requests;
  requests.push_back(std::move(request));
  return std::move(session.engine->run(std::move(requests)).front());
}

}  // namespace

int bench_command(const BenchOptions& options) {
  ModelOptions model = options.model;
  if (model.context == 0)
    model.context = *std::max_element(options.prompts.begin(), options.prompts.end()) +
                    *std::max_element(options.generate.begin(), options.generate.end()) + 256;
  Session session = open_session(model);
  const int vocab = session.engine->model().model().config.vocab;
  Json out{{"model", options.model.model},
           {"threads", threads().size()},
           {"cpu", cpu_level_name(cpu_level())},
           {"repeat", options.repeat},
           {"results", Json::array()}};
  int salt = 0;
  generate(session, tokens_of(64, vocab, salt++), 4);  // warm-up
  const auto add = [&](const char* test, int tokens, std::vector<double> rates) {
    const double mid = median(rates);
    out["results"].push_back({{"test", test},
                              {"tokens", tokens},
                              {"tokens_per_second", mid},
                              {"lowest", *std::min_element(rates.begin(), rates.end())},
                              {"highest", *std::max_element(rates.begin(), rates.end())}});
    if (!options.json) fmt::print("{:<8} {:>6} tokens  {:>9.1f} tokens/s\n", test, tokens, mid);
  };
  for (const int count : options.prompts) {
    std::vector<double> rates;
    for (int i = 0; i < options.repeat; ++i)
      rates.push_back(count / generate(session, tokens_of(count, vocab, salt++), 1).first_token_s);
    add("prefill", count, std::move(rates));
  }
  for (const int count : options.generate) {
    if (count < 2) continue;
    std::vector<double> rates;
    for (int i = 0; i < options.repeat; ++i) {
      const Answer a = generate(session, tokens_of(8, vocab, salt++), count);
      rates.push_back((count - 1) / (a.seconds - a.first_token_s));
    }
    add("decode", count, std::move(rates));
  }
  out["peak_memory_bytes"] = peak_memory();
  if (options.json)
    fmt::print("{}\n", out.dump());
  else
    fmt::print("peak memory {}\n", human_bytes(static_cast<double>(peak_memory())));
  return kOk;
}

}  // namespace thimble
