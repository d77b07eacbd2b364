// Tokens a second of LoRA training steps, where the time goes, and the share of the machine's bf16 peak.
//   bench_train MODEL [--rows 4] [--length 512] [--rank 16] [--steps 3] [--keep values|inputs] [--f32]
#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "clock.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/machine_peaks.h"
#include "models/model.h"
#include "train/optimizer.h"
#include "train/train_ops.h"

namespace thimble {
namespace {

struct Options {
  std::string model;
  int rows = 4;
  int length = 512;
  int rank = 16;
  int steps = 3;
  Keep keep = Keep::kValues;
  GemmPrecision precision = GemmPrecision::kBF16;
};

TrainBatch random_batch(const Model& model, const Options& options) {
  Random random(1);
  TrainBatch batch;
  for (int r = 0; r < options.rows; ++r) {
    const auto first = static_cast<int32_t>(batch.tokens.size());
    batch.plan.segments.push_back(
        {.query_first = first, .query_count = options.length, .key_first = first, .position = 0, .ancestors = {}});
    for (int i = 0; i < options.length; ++i) {
      batch.tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(model.config.vocab))));
      batch.targets.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(model.config.vocab))));
      batch.weights.push_back(1);
    }
  }
  return batch;
}

// Multiplications and additions of a step: frozen layers forward and for the input's gradient, adapters three
// times, the head twice, attention's two products forward and five backward over half the square.
double operations(const Model& model, const Lora& lora, const Options& options) {
  double tokens = static_cast<double>(options.rows) * options.length, sum = 0;
  for (const Linear& linear : model.linears)
    sum += 4.0 * static_cast<double>(linear.in()) * static_cast<double>(linear.out());
  for (const LoraLayer& layer : lora.layers())
    sum += 6.0 * static_cast<double>(layer.rank) * static_cast<double>(layer.linear->in() + layer.linear->out());
  sum += 7.0 * 2 * model.config.layers * model.config.heads * model.config.head_dim * options.length / 2.0;
  return sum * tokens;
}

int run(const Options& options) {
  const auto model = load_model(options.model);
  LoraConfig config;
  config.rank = options.rank;
  const Lora lora(*model, config, 1);
  TrainOps ops(*model, &lora, {.precision = options.precision, .keep = options.keep, .dropout_seed = 1});
  Optimizer optimizer(lora.parameters(), {});
  const TrainBatch batch = random_batch(*model, options);
  double best = 1e30;
  const auto faults = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
  };
  OpSeconds seconds_by_op;
  for (int step = 0; step <= options.steps; ++step) {  // the first takes the buffers and is not counted
    if (step == 1) ops.set_op_seconds(&seconds_by_op);
    const long faults_before = faults();
    const double start = bench::now();
    const double loss = ops.loss_and_gradients(batch, batch.weight());
    {
      const OpTimer timer(step > 0 ? &seconds_by_op : nullptr, "optimizer");
      optimizer.step(1e-4);
    }
    const double seconds = bench::now() - start;
    fmt::print("step {}: {:.3f} s, {:.0f} tokens/s, loss {:.4f}, {} page faults\n", step, seconds,
               static_cast<double>(batch.size()) / seconds, loss, faults() - faults_before);
    if (step > 0) best = std::min(best, seconds);
  }
  ops.set_op_seconds(nullptr);
  double all = 0;
  for (const auto& [op, seconds] : seconds_by_op) all += seconds;
  for (const auto& [op, seconds] : seconds_by_op)
    fmt::print("  {:<20} {:8.1f} ms a step {:5.1f} %\n", op, 1e3 * seconds / options.steps, 100 * seconds / all);
  const double forward_start = bench::now();
  ops.loss(batch, batch.weight());
  const double forward = bench::now() - forward_start;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto peaks = PeakProbe().measure();
  const double gops = operations(*model, lora, options) / best / 1e9;
  fmt::print(
      "{} x {} tokens, rank {}: {:.0f} tokens/s, forward alone {:.3f} s of {:.3f} s; {:.0f} GFLOP/s, {:.0f} % of "
      "the bf16 peak ({:.0f}); buffers {:.0f} MB, peak memory {:.0f} MB\n",
      options.rows, options.length, options.rank, static_cast<double>(batch.size()) / best, forward, best, gops,
      100 * gops / peaks.bf16_gops, peaks.bf16_gops, static_cast<double>(ops.buffer_bytes()) / 1e6,
      static_cast<double>(usage.ru_maxrss) / 1e3);
  return 0;
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  thimble::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const auto number = [&] { return i + 1 < argc ? std::atoi(argv[++i]) : 0; };
    if (arg == "--rows")
      options.rows = number();
    else if (arg == "--length")
      options.length = number();
    else if (arg == "--rank")
      options.rank = number();
    else if (arg == "--steps")
      options.steps = number();
    else if (arg == "--threads")
      thimble::set_threads(number());
    else if (arg == "--f32")
      options.precision = thimble::GemmPrecision::kF32;
    else if (arg == "--keep" && i + 1 < argc) {
      const std::string_view keep = argv[++i];
      options.keep = keep == "inputs" ? thimble::Keep::kInputs : thimble::Keep::kValues;
    } else
      options.model = arg;
  }
  if (options.model.empty()) {
    fmt::print(stderr,
               "bench_train MODEL [--rows 4] [--length 512] [--rank 16] [--steps 3] [--keep "
               "values|inputs] [--f32] [--threads N]\n");
    return 2;
  }
  return thimble::run(options);
}
