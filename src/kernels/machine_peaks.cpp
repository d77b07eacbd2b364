#include "kernels/machine_peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>

#include "core/cpu.h"
#include "core/thread_pool.h"
#include "kernels/simd.h"
#include "kernels/weight_memory.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thimble {
namespace {

std::atomic<int64_t> sink;  // keeps results alive

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Best of several runs of `work` on every thread; operations a second in units of 1e9.
double best_rate(double operations, const std::function<void()>& work) {
  double best = 0;
  for (int run = 0; run < 4; ++run) {
    const double start = now();
    threads().parallel_for(threads().size(), [&](int64_t, int) { work(); });
    best = std::max(best, 1e-9 * operations * threads().size() / (now() - start));
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

// Bitwise or of `bytes` (a multiple of 512), with the next ones asked for ahead as the kernels do: left to the
// processor's own prefetching, a core reads at half the speed.
template <int kAhead>
[[gnu::always_inline]] inline uint64_t read_lines(const std::byte* data, size_t bytes) {
  typedef uint64_t Line __attribute__((vector_size(64)));
  Line sum[8] = {};
  for (size_t at = 0; at < bytes; at += 512) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      if constexpr (kAhead > 0) __builtin_prefetch(data + at + 64 * i + kAhead);
      sum[i] |= *reinterpret_cast<const Line*>(data + at + 64 * i);
    }
  }
  uint64_t total = 0;
  for (const Line& line : sum)
    for (int i = 0; i < 8; ++i) total |= line[i];
  return total;
}

template <int kAhead>
uint64_t read(const std::byte* data, size_t bytes) {
  uint64_t total = 0;
  simd::with_simd([&]() __attribute__((always_inline)) { total = read_lines<kAhead>(data, bytes); });
  return total;
}

double read_bandwidth(const std::byte* data, size_t bytes) {
  constexpr size_t kPart = size_t{1} << 20;
  double best = 0;
  for (int run = 0; run < 6; ++run) {
    const auto read_part = run % 2 == 0 ? read<4096> : read<0>;
    const double start = now();
    threads().parallel_for(static_cast<int64_t>(bytes / kPart), [&](int64_t i, int) {
      sink += static_cast<int64_t>(read_part(data + static_cast<size_t>(i) * kPart, kPart));
    });
    best = std::max(best, 1e-9 * static_cast<double>(bytes) / (now() - start));
  }
  return best;
}

}  // namespace

PeakProbe::PeakProbe(size_t bytes) : bytes_(bytes), memory_(allocate_weights(bytes)) {
  // Untouched pages would all be one page of zeros.
  constexpr size_t kPart = size_t{2} << 20;
  threads().parallel_for(static_cast<int64_t>((bytes + kPart - 1) / kPart), [&](int64_t i, int) {
    const size_t first = static_cast<size_t>(i) * kPart;
    std::memset(memory_.get() + first, 1, std::min(kPart, bytes_ - first));
  });
}

MachinePeaks PeakProbe::measure() const {
  MachinePeaks peaks;
  const double steps = static_cast<double>(kRounds) * kChains;
  const CpuLevel level = cpu_level();
  if (level == CpuLevel::kPlain) peaks.int8_gops = peaks.bf16_gops = peaks.f32_gops = best_rate(2 * steps, f32_plain);
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
  peaks.read_gbytes = read_bandwidth(memory_.get(), bytes_);
  return peaks;
}

}  // namespace thimble
