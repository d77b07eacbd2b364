#include "infer/benchmark.h"

#include <fmt/core.h>

#include <algorithm>
#include <cassert>

#include "core/error.h"

namespace thimble {
namespace {

constexpr int64_t kDepthSalt = int64_t{1} << 40;  // no other prompt's

int prompt_tokens(const BenchmarkTest& test) {
  if (test.kind == BenchmarkKind::kPrefill) return test.tokens;
  return test.kind == BenchmarkKind::kDepth ? test.depth : Benchmark::kShortPrompt;
}
int generated_tokens(const BenchmarkTest& test) { return test.kind == BenchmarkKind::kPrefill ? 1 : test.tokens; }

}  // namespace

std::string_view benchmark_name(BenchmarkKind kind) {
  switch (kind) {
    case BenchmarkKind::kPrefill:
      return "prefill";
    case BenchmarkKind::kDecode:
      return "decode";
    case BenchmarkKind::kDepth:
      return "decode_at_depth";
    case BenchmarkKind::kBatch:
      return "batch";
  }
  return "";
}

int64_t benchmark_context(const std::vector<BenchmarkTest>& tests) {
  int64_t longest = 0;
  for (const BenchmarkTest& test : tests)
    longest = std::max<int64_t>(longest, prompt_tokens(test) + generated_tokens(test));
  return longest + 1;
}

int64_t benchmark_room(const std::vector<BenchmarkTest>& tests) {
  int64_t room = 256;  // warming up
  for (const BenchmarkTest& test : tests)
    room += int64_t{test.sequences} * (prompt_tokens(test) + generated_tokens(test) + 1);
  return 2 * room;  // as a server has it: in a full cache sequences stand in each other's way
}

double median(std::vector<double> values) {
  assert(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

LimitShare share_of_limit(const BenchmarkResult& result, Arithmetic arithmetic, const MachinePeaks& peaks) {
  const double peak = arithmetic == Arithmetic::kInt8   ? peaks.int8_gops
                      : arithmetic == Arithmetic::kBF16 ? peaks.bf16_gops
                                                        : peaks.f32_gops;
  const double seconds = result.work_tokens / result.rate();
  const double by_operations = result.work.operations / (1e9 * peak);
  const double by_bytes = result.work.bytes / (1e9 * peaks.read_gbytes);
  if (by_operations >= by_bytes) return {by_operations / seconds, arithmetic_name(arithmetic)};
  return {by_bytes / seconds, "read bandwidth"};
}

Benchmark::Benchmark(Engine& engine, int adapter, const std::vector<BenchmarkTest>& tests)
    : engine_(engine), adapter_(adapter) {
  const KvCache& cache = engine.cache();
  work_ = work_of(engine.model(), static_cast<double>(cache.bytes()) / static_cast<double>(cache.capacity()));
  for (const BenchmarkTest& test : tests) {
    const int64_t length = prompt_tokens(test) + generated_tokens(test);
    if (length >= engine.context())
      throw Error(
          fmt::format("bench: {} of {} tokens after {} needs {} positions, but the model's context has {}; "
                      "measure a shorter one",
                      benchmark_name(test.kind), test.tokens, prompt_tokens(test), length + 1, engine.context()));
    BenchmarkResult result{test, {}, {}, 0};
    if (test.kind == BenchmarkKind::kPrefill) {
      result.work = prefill_work(work_, test.tokens);
      result.work_tokens = test.tokens;
    } else {  // the first token comes out of the prompt
      result.work = decode_work(work_, test.sequences, prompt_tokens(test), test.tokens - 1);
      result.work_tokens = static_cast<double>(test.sequences) * (test.tokens - 1);
    }
    results_.push_back(std::move(result));
  }
}

// A pseudo-text; salts below the vocabulary's size begin with different tokens, so that nothing is found in the cache.
std::vector<int32_t> Benchmark::tokens(int count, int64_t salt) const {
  const int64_t vocab = engine_.model().model().config.vocab;
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i)
    out[static_cast<size_t>(i)] =
        static_cast<int32_t>((int64_t{7919} * (i + 1) + int64_t{104729} * (salt + 1)) % vocab);
  return out;
}

// Tokens a second.
double Benchmark::run(const BenchmarkTest& test) {
  std::vector<GenerateRequest> requests(static_cast<size_t>(test.sequences));
  for (GenerateRequest& request : requests) {
    // What stands before a deep position is read once and then found in the cache.
    const int64_t salt = test.kind == BenchmarkKind::kDepth ? kDepthSalt + test.depth : salt_++;
    request.prompt = tokens(prompt_tokens(test), salt);
    request.max_tokens = generated_tokens(test);
    request.ignore_end = true;
    request.adapter = adapter_;
  }
  const std::vector<Answer> answers = engine_.run(std::move(requests));
  double first = 0, last = 0;  // all were submitted at the same time
  for (const Answer& answer : answers) {
    first = std::max(first, answer.first_token_s);
    last = std::max(last, answer.seconds);
  }
  if (test.kind == BenchmarkKind::kPrefill) return test.tokens / first;
  return static_cast<double>(test.sequences) * (test.tokens - 1) / (last - first);
}

void Benchmark::warm_up() {
  BenchmarkTest longest{BenchmarkKind::kPrefill, 64, 0, 1}, widest{BenchmarkKind::kBatch, 4, 0, 1};
  for (const BenchmarkResult& result : results_) {
    if (result.test.kind == BenchmarkKind::kPrefill)
      longest.tokens = std::max(longest.tokens, std::min(result.test.tokens, 512));  // a step reads no more at once
    widest.sequences = std::max(widest.sequences, result.test.sequences);
  }
  longest.tokens = static_cast<int>(std::min<int64_t>(longest.tokens, engine_.context() - 2));
  run(longest);
  run(widest);
}

void Benchmark::run_tests() {
  for (BenchmarkResult& result : results_) result.rates.push_back(run(result.test));
}

void Benchmark::measure_limits() {
  if (!probe_) probe_.emplace();
  limits_.push_back(probe_->measure());
}

MachinePeaks Benchmark::limits() const {
  if (limits_.empty()) return {};
  const auto middle = [&](double MachinePeaks::* of) {
    std::vector<double> values;
    for (const MachinePeaks& peaks : limits_) values.push_back(peaks.*of);
    return median(std::move(values));
  };
  return {middle(&MachinePeaks::int8_gops), middle(&MachinePeaks::bf16_gops), middle(&MachinePeaks::f32_gops),
          middle(&MachinePeaks::read_gbytes)};
}

}  // namespace thimble
