#include "kernels/packed_layout.h"

#if defined(__x86_64__)
// GCC 12's own _mm512_undefined_* read what they do not set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "kernels/target.h"

namespace thimble::packed {
namespace {

THIMBLE_AVX512 __attribute__((always_inline)) inline void store(const TileOutput& out, int row, __m512 value) {
  const __mmask16 mask = static_cast<__mmask16>((1u << out.cols) - 1);
  float* y = out.y + row * out.stride;
  if (out.bias != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, out.bias));
  if (out.add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), value);
  _mm512_mask_storeu_ps(y, mask, value);
}

// f32 and f16 weights times f32 activations: one chain of fused multiply-adds a (row, lane), in order of k.
template <PackedKind kKind, int kRows>
THIMBLE_AVX512 void floats(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) total[r] = _mm512_setzero_ps();
  const float* x = a.values;
#pragma GCC unroll 4
  for (int64_t k = 0; k < in; ++k) {
    __builtin_prefetch(weight + k * unit_layout(kKind).bytes + kPrefetch);
    __m512 w;
    if constexpr (kKind == PackedKind::kF16)
      w = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight + k * 2 * kLanes)));
    else
      w = _mm512_loadu_ps(weight + k * 4 * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) total[r] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[k * kRows + r]), total[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
    if (r < a.valid) store(out, r, total[r]);
}

// bf16 weights times f32 activations, where the machine has no bf16 products.
template <int kRows>
THIMBLE_AVX512 void widened(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) total[r] = _mm512_setzero_ps();
  const float* x = a.values;
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
#pragma GCC unroll 2
  for (int64_t k = 0; k < in; k += 2) {
    __builtin_prefetch(weight + k * 2 * kLanes + kPrefetch);
    const __m512i both = _mm512_loadu_si512(weight + k * 2 * kLanes);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
    // Past an odd end the weight is zero; so is the activation that is laid out there.
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      total[r] = _mm512_fmadd_ps(even, _mm512_set1_ps(x[k * kRows + r]), total[r]);
      total[r] = _mm512_fmadd_ps(odd, _mm512_set1_ps(x[(k + 1) * kRows + r]), total[r]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
    if (r < a.valid) store(out, r, total[r]);
}

template <int kRows>
THIMBLE_AVX512_BF16 void pairs(const std::byte* weight, int64_t in, const ActivationTile& a, const TileOutput& out) {
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) total[r] = _mm512_setzero_ps();
  const int64_t count = (in + 1) / 2;
#pragma GCC unroll 4
  for (int64_t p = 0; p < count; ++p) {
    __builtin_prefetch(weight + p * 4 * kLanes + kPrefetch);
    const __m512bh w = reinterpret_cast<__m512bh>(_mm512_loadu_si512(weight + p * 4 * kLanes));
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
      total[r] = _mm512_dpbf16_ps(
          total[r], w, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a.pairs[p * kRows + r]))));
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
    if (r < a.valid) store(out, r, total[r]);
}

template <int kRows>
TileKernel of_kind(PackedKind kind, bool bf16_products) {
  switch (kind) {
    case PackedKind::kF32:
      return floats<PackedKind::kF32, kRows>;
    case PackedKind::kF16:
      return floats<PackedKind::kF16, kRows>;
    case PackedKind::kBF16:
      return bf16_products ? pairs<kRows> : widened<kRows>;
    default:
      return nullptr;
  }
}

}  // namespace

TileKernel avx512_float_kernel(PackedKind kind, int rows, bool bf16_products) {
  switch (rows) {
    case 1:
      return of_kind<1>(kind, bf16_products);
    case 2:
      return of_kind<2>(kind, bf16_products);
    case 3:
      return of_kind<3>(kind, bf16_products);
    case 4:
      return of_kind<4>(kind, bf16_products);
    case 6:
      return of_kind<6>(kind, bf16_products);
    case 8:
      return of_kind<8>(kind, bf16_products);
    case 12:
      return of_kind<12>(kind, bf16_products);
    case 16:
      return of_kind<16>(kind, bf16_products);
    default:
      return nullptr;
  }
}

}  // namespace thimble::packed

#else
namespace thimble::packed {
TileKernel avx512_float_kernel(PackedKind, int, bool) { return nullptr; }
}  // namespace thimble::packed
#endif
