// Microseconds that choosing one token takes, for vocabularies and options as they are used.
//   bench_sampling [--seconds S]
// Logits fall with the logarithm of their rank, as a language model's do (the likeliest token has 0.38), or are
// those of a model that has learned nothing ("flat", the likeliest below 0.01), where filters keep tens of thousands.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "core/cpu.h"
#include "core/random.h"
#include "infer/log_probs.h"
#include "infer/sampler.h"
#include "clock.h"

namespace thimble {
namespace {

constexpr size_t kRows = 8;  // of logits, in turn, so that no branch can be learned

std::vector<std::vector<float>> logits(size_t vocab, bool flat) {
  Random random(7);
  std::vector<std::vector<float>> rows(kRows, std::vector<float>(vocab));
  for (auto& row : rows) {
    for (size_t i = 0; i < vocab; ++i)
      row[i] = flat ? random.normal() : 15 - 1.5f * std::log(static_cast<float>(i + 1)) + 0.1f * random.normal();
    random.shuffle(row);
  }
  return rows;
}

// Median over rounds of the mean time of a call in a round; one round is 64 calls.
template <class Body>
double microseconds(double seconds, const Body& body) {
  std::vector<double> rounds;
  size_t call = 0;
  for (const double end = bench::now() + seconds; rounds.size() < 5 || bench::now() < end;) {
    const double start = bench::now();
    for (int i = 0; i < 64; ++i) body(call++ % kRows);
    rounds.push_back((bench::now() - start) / 64 * 1e6);
  }
  std::nth_element(rounds.begin(), rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2), rounds.end());
  return rounds[rounds.size() / 2];
}

struct Case {
  const char* name;
  SamplingOptions options;
  bool masked = false;
};

void measure(size_t vocab, bool flat, double seconds) {
  const std::vector<Case> cases = {
      {"greedy", {}},
      {"greedy, half the tokens forbidden", {}, true},
      {"greedy, all penalties", {.repeat_penalty = 1.1f, .presence_penalty = 0.5f, .dry_multiplier = 0.8f}},
      {"temperature 1", {.temperature = 1}},
      {"temperature 1, half forbidden", {.temperature = 1}, true},
      {"top-k 40, top-p 0.95", {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f}},
      {"top-p 0.95", {.temperature = 0.8f, .top_p = 0.95f}},
      {"min-p 0.05", {.temperature = 0.8f, .min_p = 0.05f}},
      {"typical 0.95", {.temperature = 1, .typical = 0.95f}},
      {"top-k 40, top-p 0.95, all penalties",
       {.temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .repeat_penalty = 1.1f,
        .presence_penalty = 0.5f,
        .frequency_penalty = 0.1f,
        .dry_multiplier = 0.8f}},
  };
  const auto rows = logits(vocab, flat);
  const std::vector<uint32_t> mask((vocab + 31) / 32, 0x6c5a93c6u);
  Random random(3);
  std::vector<int32_t> prompt;  // 2,000 tokens to look back on
  for (int i = 0; i < 2000; ++i) prompt.push_back(static_cast<int32_t>(random.below(500)));
  const auto show = [&](const char* name, double us) {
    fmt::print("{:>7} {:<6} {:<38} {:>8.1f} us\n", vocab, flat ? "flat" : "peaked", name, us);
  };
  for (const Case& c : cases) {
    Sampler sampler(c.options);
    sampler.prime(prompt);
    for (int i = 0; i < 200; ++i) sampler.accept(prompt[static_cast<size_t>(i)]);
    show(c.name, microseconds(seconds, [&](size_t row) {
           sampler.sample(rows[row], c.masked ? std::span<const uint32_t>(mask) : std::span<const uint32_t>());
         }));
  }
  show("log-probabilities, 20 alternatives",
       microseconds(seconds, [&](size_t row) { log_probs(rows[row], {}, 5, 20); }));
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  double seconds = 0.2;
  if (argc == 3 && std::string_view(argv[1]) == "--seconds" && std::atof(argv[2]) > 0) {
    seconds = std::atof(argv[2]);
  } else if (argc != 1) {
    fmt::print(stderr, "usage: bench_sampling [--seconds S]\n");
    return 2;
  }
  fmt::print("{}\n", thimble::cpu_level_name(thimble::cpu_level()));
  for (const size_t vocab : {49152, 151936})
    for (const bool flat : {false, true}) thimble::measure(vocab, flat, seconds);
}
