#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "infer/engine.h"
#include "infer/model_work.h"
#include "kernels/machine_peaks.h"

namespace thimble {

// kPrefill: how fast a prompt of `tokens` is read. kDecode: how fast `tokens` are generated after a short prompt.
// kDepth: the same after `depth` tokens. kBatch: the same by `sequences` side by side, counted together.
enum class BenchmarkKind { kPrefill, kDecode, kDepth, kBatch };
std::string_view benchmark_name(BenchmarkKind kind);  // "prefill", "decode", "decode_at_depth", "batch"

struct BenchmarkTest {
  BenchmarkKind kind = BenchmarkKind::kPrefill;
  int tokens = 0;
  int depth = 0;
  int sequences = 1;
};
// Positions of the longest sequence of the tests, and room for one round of all of them.
int64_t benchmark_context(const std::vector<BenchmarkTest>& tests);
int64_t benchmark_room(const std::vector<BenchmarkTest>& tests);

double median(std::vector<double> values);  // of at least one

struct BenchmarkResult {
  BenchmarkTest test;
  std::vector<double> rates;  // tokens a second, one a round
  Work work;                  // of one run
  double work_tokens = 0;     // tokens that this work gives

  double rate() const { return median(rates); }
};

// How close a rate comes to what this machine allows: the least time that the work can take, by its operations or by
// its bytes, whichever takes longer, over the time that it took.
struct LimitShare {
  double share = 0;
  std::string_view limit;  // "int8", "bf16", "f32" or "read bandwidth"
};
LimitShare share_of_limit(const BenchmarkResult& result, Arithmetic arithmetic, const MachinePeaks& peaks);

// Tests and the machine's limits take turns, round by round, because a machine that is shared drifts: figures of one
// run are then comparable. Medians over the rounds are what to look at.
class Benchmark {
 public:
  // Short prompts that precede decoding tests have this many tokens.
  static constexpr int kShortPrompt = 8;

  // The engine must have room for benchmark_room(tests) and as many sequences as the tests run side by side. Throws
  // Error where a test is longer than the model's context.
  Benchmark(Engine& engine, int adapter, const std::vector<BenchmarkTest>& tests);

  void warm_up();         // what first runs cost more: fresh memory, threads asleep
  void run_tests();       // one round
  void measure_limits();  // one round; takes 256 MB at the first

  const std::vector<BenchmarkResult>& results() const { return results_; }
  const ModelWork& work() const { return work_; }
  MachinePeaks limits() const;  // medians over the rounds; zeros before the first

 private:
  double run(const BenchmarkTest& test);
  std::vector<int32_t> tokens(int count, int64_t salt) const;

  Engine& engine_;
  int adapter_;
  ModelWork work_;
  std::vector<BenchmarkResult> results_;
  std::vector<MachinePeaks> limits_;
  std::optional<PeakProbe> probe_;
  int64_t salt_ = 0;
};

}  // namespace thimble
