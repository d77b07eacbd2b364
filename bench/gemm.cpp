// Products of training against what the machine's bf16 units can do: GFLOP/s and the share of the measured peak.
//   bench_gemm [rows [weight type [bf16|f32 [threads]]]]
#include "kernels/gemm.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "clock.h"
#include "core/buffer.h"
#include "core/cpu.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/lora.h"
#include "kernels/target.h"
#include "tensor/quantize.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thimble {
namespace {

using bench::now;

double seconds(const std::function<void()>& run) {
  const double start = now();
  run();
  return now() - start;
}

// Runs without memory traffic: 24 independent sums. Returns floating-point operations done.
#if defined(__x86_64__)
THIMBLE_AVX512_BF16 double dot_products(int64_t steps, float* out) {
  __m512 sums[24];
  for (auto& s : sums) s = _mm512_setzero_ps();
  __m512i pairs = _mm512_set1_epi32(static_cast<int>(steps & 1));
  for (int64_t k = 0; k < steps; ++k) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)pairs, (__m512bh)pairs);
    asm volatile("" : "+v"(pairs));
  }
  for (int i = 1; i < 24; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  _mm512_storeu_ps(out, sums[0]);
  return static_cast<double>(steps) * 24 * 64;
}
#else
double dot_products(int64_t, float*) { return 0; }
#endif

// What the threads reach together in a burst of a millisecond or so: machines are shared and drift, so bursts stand
// between the runs that they are compared with.
double peak_burst() {
  if (cpu_level() < CpuLevel::kAvx512Bf16) return 0;
  double flops = 0;
  const double s = seconds([&] {
    threads().parallel_for(threads().size(), [&](int64_t, int) {
      float out[16];
      const double done = dot_products(150'000, out);
      if (out[0] > 1e30f) std::abort();
      flops = done;
    });
  });
  return flops * threads().size() / s / 1e9;
}

struct Weight {
  Buffer<std::byte> bytes;
  Tensor tensor;
};
Weight random_weight(DType type, int64_t out, int64_t in, Random& random) {
  Weight w;
  w.bytes = Buffer<std::byte>(dtype_bytes(type, in) * static_cast<size_t>(out));
  std::vector<float> row(static_cast<size_t>(in));
  const size_t stride = dtype_bytes(type, in);
  for (int64_t o = 0; o < out; ++o) {
    if (o < 64) {
      for (float& v : row) v = random.normal() * 0.05f;
      quantize_row(type, row.data(), in, w.bytes.data() + static_cast<size_t>(o) * stride);
    } else {
      std::copy_n(w.bytes.data() + static_cast<size_t>(o % 64) * stride, stride,
                  w.bytes.data() + static_cast<size_t>(o) * stride);
    }
  }
  w.tensor = {type, {out, in}, w.bytes.data(), nullptr};
  return w;
}

Buffer<float> random_values(int64_t count, Random& random) {
  Buffer<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(random.uniform()) - 0.5f;
  return values;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void report(const std::string& name, double flops, const std::function<void()>& run) {
  run();
  std::vector<double> times, peaks, shares;
  double total = 0;
  while (times.size() < 7 || (total < 0.2 && times.size() < 100)) {
    const double before = peak_burst();
    times.push_back(seconds(run));
    peaks.push_back(0.5 * (before + peak_burst()));
    if (peaks.back() > 0) shares.push_back(flops / times.back() / 1e9 / peaks.back());
    total += times.back();
  }
  fmt::print("{:<44} {:8.3f} ms {:7.1f} GFLOP/s", name, median(times) * 1e3, flops / median(times) / 1e9);
  if (!shares.empty()) fmt::print(" {:5.1f} % of {:.0f}", 100 * median(shares), median(peaks));
  fmt::print("\n");
}

void run(int64_t rows, DType type, GemmPrecision precision) {
  Random random(1);
  fmt::print("{} rows, weights {}, {}, {} threads; share of the bf16 peak\n", rows, dtype_info(type).name,
             precision == GemmPrecision::kBF16 ? "bf16" : "f32", threads().size());
  const int64_t shapes[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}, {49152, 576}};
  for (const auto& [out, in] : shapes) {
    const Weight w = random_weight(type, out, in, random);
    const int64_t wide = std::max(in, out), n = std::min<int64_t>(rows, 256 * (1 << 20) / wide);
    const Buffer<float> x = random_values(n * in, random), dy = random_values(n * out, random);
    const Buffer<float> y(static_cast<size_t>(n * wide));
    Buffer<uint16_t> x16(x.size()), dy16(dy.size());
    convert_to_bf16(x.data(), n * in, x16.data());
    convert_to_bf16(dy.data(), n * out, dy16.data());
    const GemmInput x_rows{x.data(), n, in, x16.data()}, dy_rows{dy.data(), n, out, dy16.data()};
    const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(in) * static_cast<double>(out);
    const std::string shape = fmt::format("[{}, {}]", out, in);
    report("forward " + shape, flops, [&] { linear_forward(precision, x_rows, w.tensor, y.data()); });
    report("gradient of the input " + shape, flops,
           [&] { linear_backward_input(precision, dy_rows, w.tensor, y.data()); });
    if (out > 8192) continue;
    const Buffer<float> dw(static_cast<size_t>(in * out));
    report("gradient of the weight " + shape, flops,
           [&] { linear_backward_weight(precision, dy_rows, x_rows, dw.data()); });
    for (const int64_t rank : {8, 16, 64}) {
      const Buffer<float> a = random_values(rank * in, random), b = random_values(out * rank, random);
      const Buffer<float> t(static_cast<size_t>(n * rank)), da(a.size()), db(b.size());
      const LowRank adapter{a.data(), b.data(), rank, 2.0f};
      const double low = 2.0 * static_cast<double>(n * rank * (in + out));
      report(fmt::format("lora forward {} rank {}", shape, rank), flops + low,
             [&] { lora_forward(precision, x_rows, w.tensor, adapter, y.data(), t.data()); });
      report(fmt::format("lora backward {} rank {}", shape, rank), flops + 2 * low, [&] {
        lora_backward(precision, dy_rows, x_rows, w.tensor, adapter, t.data(), y.data(), false, da.data(), db.data());
      });
    }
  }
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  using namespace thimble;
  if (argc > 4) set_threads(std::atoi(argv[4]));
  const int64_t rows = argc > 1 ? std::atoll(argv[1]) : 2048;
  const DType type = dtype_from_name(argc > 2 ? argv[2] : "Q4_1").value_or(DType::kQ4_1);
  run(rows, type, argc > 3 && std::string(argv[3]) == "f32" ? GemmPrecision::kF32 : GemmPrecision::kBF16);
}
