// Tokens a second of training steps, where the time goes, the share of the machine's bf16 peak, the time from start to
// the end of the first step, and peak memory beside its plan.
//   bench_train MODEL [--rows 4] [--length 512] [--shared 0] [--method lora|dora|full] [--rank 16]
//     [--optimizer adamw|adamw8bit] [--no-master] [--steps 3] [--memory MB] [--f32]
// --shared N: all rows begin with the same N tokens, which nothing is trained on (tools in every prompt).
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
#include "train/trainer.h"

namespace thimble {
namespace {

struct Options {
  std::string model;
  int rows = 4;
  int length = 512;
  int shared = 0;
  int rank = 16;
  int steps = 3;
  size_t memory_limit = 0;
  std::string method = "lora";
  bool eight_bit = false;
  bool master = true;
  GemmPrecision precision = GemmPrecision::kBF16;
};

TrainBatch random_batch(const Model& model, const Options& options) {
  Random random(1);
  TrainBatch batch;
  const auto add = [&](int32_t count, int32_t position, std::vector<KeyRange> ancestors, float weight) {
    const auto first = static_cast<int32_t>(batch.tokens.size());
    batch.plan.segments.push_back({.query_first = first,
                                   .query_count = count,
                                   .key_first = first,
                                   .position = position,
                                   .ancestors = std::move(ancestors)});
    for (int32_t i = 0; i < count; ++i) {
      batch.tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(model.config.vocab))));
      batch.targets.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(model.config.vocab))));
      batch.weights.push_back(weight);
    }
  };
  if (options.shared > 0) add(options.shared, 0, {}, 0);
  const std::vector<KeyRange> before(options.shared > 0 ? 1 : 0, KeyRange{0, options.shared});
  for (int r = 0; r < options.rows; ++r) add(options.length, options.shared, before, 1);
  return batch;
}

// Multiplications and additions of a step: layers forward, for the input's gradient and, where they are trained, their
// own; adapters three times; attention's two products forward and five backward over half the square.
double operations(const Model& model, const Trained& trained, const Options& options) {
  const double tokens = static_cast<double>(options.rows) * options.length + options.shared;
  const double pairs =
      options.rows * options.length * (options.length / 2.0 + options.shared) + options.shared * (options.shared / 2.0);
  double sum = 0;
  for (const Linear& linear : model.linears)
    sum +=
        (trained.weights != nullptr ? 6.0 : 4.0) * static_cast<double>(linear.in()) * static_cast<double>(linear.out());
  for (const LoraLayer& layer : trained.lora != nullptr ? trained.lora->layers() : std::vector<LoraLayer>())
    sum += 6.0 * static_cast<double>(layer.rank) * static_cast<double>(layer.linear->in() + layer.linear->out());
  return sum * tokens + 7.0 * 2 * model.config.layers * model.config.heads * model.config.head_dim * pairs;
}

TrainConfig config_of(const Options& options) {
  TrainConfig config;
  config.lora.rank = options.rank;
  config.lora.dora = options.method == "dora";
  config.weights.train = options.method == "full";
  config.weights.master = options.master;
  config.optimizer.eight_bit = options.eight_bit;
  config.precision = options.precision;
  config.memory_limit = options.memory_limit;
  config.batch_rows = options.rows;
  config.token_budget = int64_t{options.rows} * options.length + options.shared;
  return config;
}

// The batch as rows of data, for the plan.
std::vector<TrainRow> rows_of(const TrainBatch& batch, const Options& options) {
  std::vector<TrainRow> rows(static_cast<size_t>(options.rows));
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto first = batch.tokens.begin() + options.shared + static_cast<int64_t>(r) * options.length;
    rows[r].tokens.assign(batch.tokens.begin(), batch.tokens.begin() + options.shared);
    rows[r].tokens.insert(rows[r].tokens.end(), first, first + options.length);
    rows[r].tokens.push_back(0);
    rows[r].trained.assign(rows[r].tokens.size(), 1);
    std::fill_n(rows[r].trained.begin(), options.shared, 0);
  }
  return rows;
}

int run(const Options& options) {
  const double begin = bench::now();
  const auto model = load_model(options.model);
  const TrainConfig config = config_of(options);
  const TrainBatch batch = random_batch(*model, options);
  const MemoryPlan plan = plan_memory(*model, config, rows_of(batch, options));
  const Trainable trainable = make_trainable(*model, config);
  TrainOps ops(*model, trainable,
               {.precision = options.precision, .recomputed_blocks = plan.recomputed_blocks, .dropout_seed = 1});
  Optimizer optimizer(trainable.parameters(), config.optimizer);
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
    if (step > 0)
      best = std::min(best, seconds);
    else
      fmt::print("first step done {:.2f} s after start\n", bench::now() - begin);
  }
  ops.set_op_seconds(nullptr);
  const std::vector<float> kept = copy_values(optimizer.parameters());  // as after an evaluation
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
  const double gops = operations(*model, trainable, options) / best / 1e9;
  fmt::print(
      "{} x {} tokens{}, {}: {:.0f} tokens/s, forward alone {:.3f} s of {:.3f} s; {:.0f} GFLOP/s, {:.0f} % of "
      "the bf16 peak ({:.0f}); buffers {:.0f} MB, peak memory {:.0f} MB of {:.0f} planned, {} of {} blocks "
      "recomputed\n",
      options.rows, options.length, options.shared > 0 ? fmt::format(" after {} that they share", options.shared) : "",
      options.method == "full" ? "all weights" : fmt::format("rank {}", options.rank),
      static_cast<double>(batch.size()) / best, forward, best, gops, 100 * gops / peaks.bf16_gops, peaks.bf16_gops,
      static_cast<double>(ops.buffer_bytes()) / 1e6, static_cast<double>(usage.ru_maxrss) * 1.024e-3,
      static_cast<double>(plan.total()) / 1e6, plan.recomputed_blocks, model->config.layers);
  return kept.empty() ? 1 : 0;
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
    else if (arg == "--shared")
      options.shared = number();
    else if (arg == "--rank")
      options.rank = number();
    else if (arg == "--steps")
      options.steps = number();
    else if (arg == "--threads")
      thimble::set_threads(number());
    else if (arg == "--method" && i + 1 < argc)
      options.method = argv[++i];
    else if (arg == "--optimizer" && i + 1 < argc)
      options.eight_bit = std::string_view(argv[++i]) == "adamw8bit";
    else if (arg == "--no-master")
      options.master = false;
    else if (arg == "--f32")
      options.precision = thimble::GemmPrecision::kF32;
    else if (arg == "--memory")
      options.memory_limit = static_cast<size_t>(number()) * 1'000'000;
    else
      options.model = arg;
  }
  if (options.model.empty()) {
    fmt::print(stderr,
               "bench_train MODEL [--rows 4] [--length 512] [--shared 0] [--method lora|dora|full] [--rank 16] "
               "[--optimizer adamw|adamw8bit] [--no-master] [--steps 3] [--memory MB] [--f32] [--threads N]\n");
    return 2;
  }
  return thimble::run(options);
}
