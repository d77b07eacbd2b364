// Speed of the inference kernels against what this machine can do: operations a second as a share of the measured
// peak of its instructions, bytes a second as a share of the measured read bandwidth.
//   bench_kernels [--json] [--type Q4_1 | --attention] [--threads N] [--seconds S]
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "clock.h"
#include "core/buffer.h"
#include "core/cpu.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/kv_store.h"
#include "kernels/machine_peaks.h"
#include "kernels/packed_matmul.h"
#include "tensor/blocks.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

struct Options {
  bool json = false;
  std::optional<DType> type;
  bool attention_only = false;
  double seconds = 0.3;
};

// Median seconds of a call, over runs that fill `seconds`.
template <class Body>
double median_seconds(double seconds, const Body& body) {
  body();
  std::vector<double> times;
  const double end = bench::now() + seconds;
  while (times.size() < 5 || bench::now() < end) {
    const double start = bench::now();
    body();
    times.push_back(bench::now() - start);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

// One random row over and over; what the weights are does not change the speed.
Tensor random_weight(DType type, int64_t out, int64_t in) {
  Random random(1);
  auto bytes = std::make_shared<std::vector<std::byte>>(dtype_bytes(type, in) * static_cast<size_t>(out));
  std::vector<float> row(static_cast<size_t>(in));
  for (float& v : row) v = 0.05f * random.normal();
  std::vector<std::byte> one(dtype_bytes(type, in));
  quantize_row(type, row.data(), in, one.data());
  for (int64_t r = 0; r < out; ++r)
    std::memcpy(bytes->data() + static_cast<size_t>(r) * one.size(), one.data(), one.size());
  return {type, {out, in}, bytes->data(), bytes};
}

// As a transformer's: some channels stand out in every row, a few values anywhere.
std::vector<float> activations(int64_t rows, int64_t in) {
  Random random(2);
  std::vector<float> x(static_cast<size_t>(rows * in));
  std::vector<float> channel(static_cast<size_t>(in), 1.0f);
  for (int64_t g = 0; g < in / 32; ++g)
    if (g % 12 == 5) channel[static_cast<size_t>(g * 32 + 9)] = 25.0f;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = random.normal() * channel[i % static_cast<size_t>(in)];
    if (random.below(2000) == 0) x[i] *= 20;
  }
  return x;
}

void prefill(const Options& options, const MachinePeaks& peaks, DType type, int64_t rows, int64_t out,
             int64_t in) {
  const PackedWeight weight = PackedWeight::pack(random_weight(type, out, in));
  const std::vector<float> x = activations(rows, in);
  Buffer<float> y(static_cast<size_t>(rows * out));
  const double seconds = median_seconds(options.seconds, [&] { packed_matmul(x.data(), rows, weight, y.data()); });
  const double gops = 2e-9 * static_cast<double>(rows * out * in) / seconds;
  const double peak = is_quantized(type) ? peaks.int8_gops : type == DType::kBF16 ? peaks.bf16_gops : peaks.f32_gops;
  if (options.json)
    fmt::print(
        "{{\"kernel\": \"matmul\", \"type\": \"{}\", \"rows\": {}, \"out\": {}, \"in\": {}, \"gops\": {:.1f}, "
        "\"share_of_peak\": {:.3f}}}\n",
        dtype_info(type).name, rows, out, in, gops, gops / peak);
  else
    fmt::print("matmul {:>5} {:>4} x {:>6} x {:>5}  {:>7.1f} Gop/s {:>4.0f} % of peak\n", dtype_info(type).name, rows,
               out, in, gops, 100 * gops / peak);
}

// Reads more weights than any cache holds, layer after layer, as decoding does.
void decode(const Options& options, const MachinePeaks& peaks, DType type, int64_t rows, int64_t out,
            int64_t in) {
  const Tensor tensor = random_weight(type, out, in);
  std::vector<PackedWeight> weights;
  size_t bytes = 0;
  while (bytes < (size_t{128} << 20)) {
    weights.push_back(PackedWeight::pack(tensor));
    bytes += weights.back().bytes();
  }
  const std::vector<float> x = activations(rows, in);
  Buffer<float> y(static_cast<size_t>(rows * out));
  const double seconds = median_seconds(options.seconds, [&] {
    for (const PackedWeight& weight : weights) packed_matmul(x.data(), rows, weight, y.data());
  });
  const double gbytes = 1e-9 * static_cast<double>(bytes) / seconds;
  if (options.json)
    fmt::print(
        "{{\"kernel\": \"matmul\", \"type\": \"{}\", \"rows\": {}, \"out\": {}, \"in\": {}, "
        "\"gbytes_per_second\": {:.1f}, \"share_of_bandwidth\": {:.3f}}}\n",
        dtype_info(type).name, rows, out, in, gbytes, gbytes / peaks.read_gbytes);
  else
    fmt::print("matmul {:>5} {:>4} x {:>6} x {:>5}  {:>7.1f} GB/s  {:>4.0f} % of bandwidth\n", dtype_info(type).name,
               rows, out, in, gbytes, 100 * gbytes / peaks.read_gbytes);
}

constexpr AttentionShape kShape{9, 3, 64, 0.125f};  // one layer's, as SmolLM2-135M has it

// A layer's keys and values.
struct Cache {
  KvLayout layout;
  ByteBuffer keys, values;

  Cache(KvType type, int64_t slots)
      : layout{type, kShape.kv_heads, kShape.head_dim}, keys(layout.bytes(slots)), values(layout.bytes(slots)) {
    const std::vector<float> source = activations(slots, int64_t{kShape.kv_heads} * kShape.head_dim);
    std::vector<int32_t> order(static_cast<size_t>(slots));
    std::iota(order.begin(), order.end(), 0);
    store_keys(layout, source.data(), slots, order.data(), keys.data());
    store_values(layout, source.data(), slots, order.data(), values.data());
  }
  Cache(const KvLayout& layout, size_t bytes) : layout(layout), keys(bytes), values(bytes) {}
  Cache copy() const {
    Cache other(layout, keys.size());
    std::memcpy(other.keys.data(), keys.data(), keys.size());
    std::memcpy(other.values.data(), values.data(), values.size());
    return other;
  }
  KeyValueCache view() const { return {layout, keys.data(), values.data()}; }
};

// A token's attention after `past` others, layer after layer, as decoding does: more layers than any cache holds.
void decode_attention(const Options& options, const MachinePeaks& peaks, KvType type, int32_t past) {
  const AttentionPlan plan{{{0, 1, past, past, {{0, past}}}}, 0};
  std::vector<Cache> layers;
  layers.emplace_back(type, past + 1);
  for (double bytes = 0; bytes < 96e6; bytes += 2.0 * static_cast<double>(layers.back().keys.size()))
    layers.push_back(layers.front().copy());
  const std::vector<float> q = activations(1, int64_t{kShape.heads} * kShape.head_dim);
  std::vector<float> out(q.size());
  const double seconds = median_seconds(options.seconds, [&] {
                           for (const Cache& layer : layers)
                             attention_forward(q.data(), layer.view(), plan, kShape, out.data(), nullptr);
                         }) /
                         static_cast<double>(layers.size());
  const KvLayout& layout = layers.front().layout;
  const double gbytes = 2e-9 * static_cast<double>(layout.block_bytes()) / kKvSlots * (past + 1) / seconds;
  const std::string_view name = kv_type_name(type);
  if (options.json)
    fmt::print(
        "{{\"kernel\": \"decode attention\", \"type\": \"{}\", \"past\": {}, \"microseconds\": {:.1f}, "
        "\"gbytes_per_second\": {:.1f}, \"share_of_bandwidth\": {:.3f}}}\n",
        name, past, seconds * 1e6, gbytes, gbytes / peaks.read_gbytes);
  else
    fmt::print("attention, {:>4}, 1 row after {:>4}  {:>8.1f} us {:>6.1f} GB/s {:>4.0f} % of bandwidth\n", name, past,
               seconds * 1e6, gbytes, 100 * gbytes / peaks.read_gbytes);
}

// Keys in f16. `sequences` rows or prompts, each with `past` tokens before its `rows`: of its own, or one prefix that
// all share.
void attention(const Options& options, const MachinePeaks& peaks, int32_t sequences, int32_t rows, int32_t past,
               bool shared = false) {
  AttentionPlan plan;
  double pairs = 0;  // of a query and a key it sees
  for (int32_t s = 0; s < sequences; ++s) {
    const int32_t slot = s * (past + rows);
    AttentionSegment segment{s * rows, rows, slot + past, past, {}};
    if (past > 0) segment.ancestors.push_back({shared ? 0 : slot, past});
    plan.segments.push_back(segment);
    pairs += static_cast<double>(rows) * past + 0.5 * rows * (rows + 1.0);
  }
  const Cache cache(KvType::kF16, int64_t{sequences} * (past + rows));
  const std::vector<float> q = activations(plan.rows(), int64_t{kShape.heads} * kShape.head_dim);
  Buffer<float> out(q.size());
  const double seconds = median_seconds(
      options.seconds, [&] { attention_forward(q.data(), cache.view(), plan, kShape, out.data(), nullptr); });
  const double gflops = 1e-9 * pairs * 4 * kShape.heads * kShape.head_dim / seconds;
  if (options.json)
    fmt::print(
        "{{\"kernel\": \"attention\", \"sequences\": {}, \"rows\": {}, \"past\": {}, \"shared\": {}, "
        "\"microseconds\": {:.1f}, \"gflops\": {:.1f}, \"share_of_peak\": {:.3f}}}\n",
        sequences, rows, past, shared, seconds * 1e6, gflops, gflops / peaks.f32_gops);
  else
    fmt::print("attention {:>2} x {:>3} rows after {:>4}{}  {:>8.1f} us {:>6.1f} GFLOP/s {:>4.0f} % of peak\n",
               sequences, rows, past, shared ? " shared" : "", seconds * 1e6, gflops, 100 * gflops / peaks.f32_gops);
}

int run(const Options& options) {
  const MachinePeaks peaks = PeakProbe().measure();
  if (options.json)
    fmt::print(
        "{{\"threads\": {}, \"cpu\": \"{}\", \"int8_gops\": {:.0f}, \"bf16_gops\": {:.0f}, \"f32_gops\": {:.0f}, "
        "\"read_gbytes_per_second\": {:.1f}}}\n",
        threads().size(), cpu_level_name(cpu_level()), peaks.int8_gops, peaks.bf16_gops, peaks.f32_gops,
        peaks.read_gbytes);
  else
    fmt::print("{} threads, {}: int8 {:.0f} Gop/s, bf16 {:.0f}, f32 {:.0f}; reading {:.1f} GB/s\n", threads().size(),
               cpu_level_name(cpu_level()), peaks.int8_gops, peaks.bf16_gops, peaks.f32_gops, peaks.read_gbytes);
  struct Shape {
    int64_t out, in;
  };
  for (const DType type : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ5_1, DType::kQ4_K, DType::kQ6_K,
                           DType::kBF16, DType::kF16}) {
    if (options.attention_only || (options.type.has_value() && *options.type != type)) continue;
    const bool super = dtype_info(type).block == kSuperBlock;
    for (const Shape& shape : super ? std::vector<Shape>{{1536, 2048}}
                                    : std::vector<Shape>{{576, 576}, {1536, 576}, {576, 1536}, {49152, 576}})
      prefill(options, peaks, type, 512, shape.out, shape.in);
    for (const int64_t rows : {1, 4, 8, 16})
      for (const Shape& shape : super ? std::vector<Shape>{{1536, 2048}} : std::vector<Shape>{{576, 576}, {1536, 576}})
        decode(options, peaks, type, rows, shape.out, shape.in);
  }
  if (options.type.has_value()) return 0;
  attention(options, peaks, 1, 512, 0);
  attention(options, peaks, 1, 512, 1536);
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8})
    for (const int32_t past : {128, 1024, 4096}) decode_attention(options, peaks, type, past);
  attention(options, peaks, 16, 1, 512);
  attention(options, peaks, 16, 1, 2048);
  attention(options, peaks, 16, 1, 2048, true);
  return 0;
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  thimble::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--json") {
      options.json = true;
    } else if (name == "--attention") {
      options.attention_only = true;
    } else if (name == "--type" && (options.type = thimble::dtype_from_name(value)).has_value()) {
      ++i;
    } else if (name == "--threads" && std::atoi(value) > 0) {
      thimble::set_threads(std::atoi(value));
      ++i;
    } else if (name == "--seconds" && std::atof(value) > 0) {
      options.seconds = std::atof(value);
      ++i;
    } else {
      fmt::print(stderr, "usage: bench_kernels [--json] [--type NAME | --attention] [--threads N] [--seconds S]\n");
      return 2;
    }
  }
  return thimble::run(options);
}
