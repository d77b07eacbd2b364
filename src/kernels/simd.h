#pragma once

#include <cstdint>

#include "core/cpu.h"

// Vector code that is written once and compiled for every instruction set: the compiler splits the 64-byte vectors
// below where a machine has narrower ones. Everything here is always inlined, so that it takes the instruction set
// of the function it lands in; with_simd makes those functions.
namespace thimble::simd {

typedef float F32 __attribute__((vector_size(64)));
typedef int32_t I32 __attribute__((vector_size(64)));
typedef uint32_t U32 __attribute__((vector_size(64)));
typedef float F32Unaligned __attribute__((vector_size(64), aligned(4), may_alias));
// Sums that a loop carries from round to round: g++ keeps those of F32 in memory where registers are narrower. An F32,
// or a quarter of one on ARM.
#if defined(__aarch64__)
typedef float Carried __attribute__((vector_size(16)));
typedef float CarriedUnaligned __attribute__((vector_size(16), aligned(4), may_alias));
#else
typedef F32 Carried;
typedef F32Unaligned CarriedUnaligned;
#endif

inline constexpr int64_t kLanes = 16;

[[gnu::always_inline]] inline F32 set(float x) { return F32{} + x; }
[[gnu::always_inline]] inline F32 load(const float* p) { return *reinterpret_cast<const F32Unaligned*>(p); }
[[gnu::always_inline]] inline void store(float* p, F32 x) { *reinterpret_cast<F32Unaligned*>(p) = x; }
[[gnu::always_inline]] inline Carried load_carried(const float* p) {
  return *reinterpret_cast<const CarriedUnaligned*>(p);
}
#if defined(__aarch64__)
[[gnu::always_inline]] inline void store(float* p, Carried x) { *reinterpret_cast<CarriedUnaligned*>(p) = x; }
#endif
// The first n of 16 lanes; the others read as 0.
[[gnu::always_inline]] inline F32 load(const float* p, int64_t n) {
  F32 x{};
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return x;
}
[[gnu::always_inline]] inline void store(float* p, F32 x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = x[i];
}
// All ones where a < b. Signs and bits instead of comparisons, of which g++ 12 makes scalar code below AVX-512.
[[gnu::always_inline]] inline I32 less(F32 a, F32 b) { return reinterpret_cast<I32>(a - b) >> 31; }
[[gnu::always_inline]] inline F32 select(I32 mask, F32 a, F32 b) {
  return reinterpret_cast<F32>((mask & reinterpret_cast<I32>(a)) | (~mask & reinterpret_cast<I32>(b)));
}
[[gnu::always_inline]] inline F32 min(F32 a, F32 b) { return select(less(a, b), a, b); }
[[gnu::always_inline]] inline F32 max(F32 a, F32 b) { return select(less(a, b), b, a); }

// Lanes are added in pairs, in one order on every machine.
[[gnu::always_inline]] inline float sum(F32 x) {
  float v[16];
  store(v, x);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) v[i] += v[i + width];
  return v[0];
}
[[gnu::always_inline]] inline float max(F32 x) {
  float v[16];
  store(v, x);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) v[i] = v[i] > v[i + width] ? v[i] : v[i + width];
  return v[0];
}

// exp(x) to about 1e-7 relative; 0 below -87.3, no infinity: above 88.3 it stays at about 2.2e38. NaN stays NaN.
[[gnu::always_inline]] inline F32 exp(F32 x) {
  const F32 magic = set(0x1.8p23f);  // adding it rounds to an integer, which then stands in the low bits
  const F32 bounded = max(min(x, set(88.3f)), set(-87.3f));
  const F32 shifted = bounded * 1.44269504088896341f + magic;
  const F32 n = shifted - magic;
  const F32 r = (bounded - n * 0.693359375f) - n * -2.12194440e-4f;  // n · ln 2 in two parts
  F32 p = set(1.9875691500e-4f);                                     // Cephes' polynomial
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const I32 exponent = (reinterpret_cast<I32>(shifted) << 23) + (127 << 23);
  const F32 result = p * reinterpret_cast<F32>(exponent);
  const I32 too_small = less(x, set(-87.3f));
  const I32 not_a_number = (0x7f800000 - (reinterpret_cast<I32>(x) & 0x7fffffff)) >> 31;
  return select(not_a_number, x, select(too_small, F32{}, result));
}

[[gnu::always_inline]] inline F32 sigmoid(F32 x) { return 1.0f / (1.0f + exp(-x)); }

namespace detail {
template <class Body>
[[gnu::noinline]] void run_plain(const Body& body) {
  body();
}
#if defined(__x86_64__)
template <class Body>
[[gnu::noinline, gnu::target("avx2,fma,f16c")]] void run_avx2(const Body& body) {
  body();
}
template <class Body>
[[gnu::noinline, gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]] void run_avx512(
    const Body& body) {
  body();
}
#endif
}  // namespace detail

// Calls body(), which must be a lambda marked __attribute__((always_inline)) and hold no call into the standard
// library, compiled for the instruction set that cpu_level() names.
template <class Body>
void with_simd(const Body& body) {
#if defined(__x86_64__)
  const CpuLevel level = cpu_level();
  if (level >= CpuLevel::kAvx512) return detail::run_avx512(body);
  if (level >= CpuLevel::kAvx2) return detail::run_avx2(body);
#endif
  detail::run_plain(body);
}

}  // namespace thimble::simd
