#include "machine_peaks.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <ctime>
#include <functional>

#include "core/buffer.h"
#include "core/cpu.h"
#include "core/thread_pool.h"

#if defined(__x86_64__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

namespace thimble::bench {
namespace {

std::atomic<int64_t> sink;  // keeps results alive

// Best of several runs of `work` on every thread; operations a second in units of 1e9.
double best_rate(double operations, const std::function<void()>& work) {
  double best = 0;
  for (int run = 0; run < 7; ++run) {
    const double start = now();
    threads().parallel_for(threads().size(), [&](int64_t, int) { work(); });
    const double seconds = now() - start;
    best = std::max(best, 1e-9 * operations * threads().size() / seconds);
  }
  return best;
}

constexpr int kRounds = 2'000'000;
constexpr int kChains = 12;  // independent sums: more than latency x throughput of any of the instructions

#if defined(__x86_64__)
#define THIMBLE_PEAK_512 __attribute__((target("avx512f,avx512bw,avx512vnni,avx512bf16,fma")))
#define THIMBLE_PEAK_256 __attribute__((target("avx2,fma")))

// The barrier keeps the compiler from folding rounds together.
THIMBLE_PEAK_512 void int8_512() {
  __m512i sum[kChains] = {};
  const __m512i x = _mm512_set1_epi8(3);
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      sum[j] = _mm512_dpbusd_epi32(sum[j], x, x);
      asm volatile("" : "+v"(sum[j]));
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) sink += _mm512_reduce_add_epi32(sum[j]);
}
THIMBLE_PEAK_512 void bf16_512() {
  __m512 sum[kChains] = {};
  const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      sum[j] = _mm512_dpbf16_ps(sum[j], x, x);
      asm volatile("" : "+v"(sum[j]));
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) sink += static_cast<int64_t>(_mm512_reduce_add_ps(sum[j]));
}
THIMBLE_PEAK_512 void f32_512() {
  __m512 sum[kChains] = {};
  const __m512 x = _mm512_set1_ps(0.5f);
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      sum[j] = _mm512_fmadd_ps(x, x, sum[j]);
      asm volatile("" : "+v"(sum[j]));
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) sink += static_cast<int64_t>(_mm512_reduce_add_ps(sum[j]));
}
THIMBLE_PEAK_256 void int8_256() {
  __m256i sum[kChains] = {};
  const __m256i x = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), ones));
      asm volatile("" : "+x"(sum[j]));
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) sink += _mm256_extract_epi32(sum[j], 0);
}
THIMBLE_PEAK_256 void f32_256() {
  __m256 sum[kChains] = {};
  const __m256 x = _mm256_set1_ps(0.5f);
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      sum[j] = _mm256_fmadd_ps(x, x, sum[j]);
      asm volatile("" : "+x"(sum[j]));
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) sink += static_cast<int64_t>(_mm256_cvtss_f32(sum[j]));
}
#endif

void f32_plain() {
  float sum[kChains] = {};
  for (int i = 0; i < kRounds; ++i)
    for (int j = 0; j < kChains; ++j) sum[j] = sum[j] * 0.5f + 1.0f;
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) sink += static_cast<int64_t>(sum[j]);
}

__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t read_all(const uint64_t* data, size_t count) {
  uint64_t sum[32] = {};
  for (size_t i = 0; i + 32 <= count; i += 32)
    for (size_t j = 0; j < 32; ++j) sum[j] |= data[i + j];
  uint64_t total = 0;
  for (const uint64_t s : sum) total |= s;
  return total;
}

double read_bandwidth() {
  const size_t words = size_t{16} << 20;
  const Buffer<uint64_t> data(words);
  const int64_t parts = 256;
  const size_t part = words / parts;
  double best = 0;
  for (int run = 0; run < 10; ++run) {
    const double start = now();
    threads().parallel_for(parts, [&](int64_t i, int) {
      sink += static_cast<int64_t>(read_all(data.data() + static_cast<size_t>(i) * part, part));
    });
    const double seconds = now() - start;
    best = std::max(best, 1e-9 * static_cast<double>(words * 8) / seconds);
  }
  return best;
}

}  // namespace

double now() {
  timespec time{};
  clock_gettime(threads().size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

MachinePeaks measure_peaks() {
  MachinePeaks peaks;
  const double steps = static_cast<double>(kRounds) * kChains;
  const CpuLevel level = cpu_level();
  peaks.f32_gops = best_rate(2 * steps, f32_plain);
  peaks.int8_gops = peaks.bf16_gops = peaks.f32_gops;
#if defined(__x86_64__)
  if (level == CpuLevel::kAvx2) {
    peaks.f32_gops = peaks.bf16_gops = best_rate(16 * steps, f32_256);
    peaks.int8_gops = best_rate(64 * steps, int8_256);
  }
  if (level >= CpuLevel::kAvx512) {
    peaks.f32_gops = peaks.bf16_gops = best_rate(32 * steps, f32_512);
    peaks.int8_gops = best_rate(128 * steps, int8_512);
  }
  if (level == CpuLevel::kAvx512Bf16) peaks.bf16_gops = best_rate(64 * steps, bf16_512);
#endif
  peaks.read_gbytes = read_bandwidth();
  return peaks;
}

}  // namespace thimble::bench
