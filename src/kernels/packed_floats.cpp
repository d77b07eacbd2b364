// Activations as the kernels of the float kinds read them: element by element, the rows side by side.

#include <algorithm>

#include "kernels/packed_layout.h"
#include "tensor/half.h"

#if defined(__x86_64__)
// GCC 12's own _mm512_undefined_* read what they do not set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "kernels/avx512_transpose.h"
#include "kernels/target.h"
#endif

namespace thimble::packed {

void lay_out_floats(const float* x, int64_t in, const FloatTile& out) {
  const int rows = out.rows;
  const int64_t count = (in + 1) / 2;
  for (int r = 0; r < rows; ++r) {
    const float* from = x + r * in;
    const auto value = [&](int64_t k) { return r < out.valid && k < in ? from[k] : 0.0f; };
    if (out.values != nullptr)
      for (int64_t k = 0; k < 2 * count; ++k) out.values[k * rows + r] = value(k);
    if (out.pairs != nullptr)
      for (int64_t p = 0; p < count; ++p)
        out.pairs[p * rows + r] =
            f32_to_bf16(value(2 * p)) | static_cast<uint32_t>(f32_to_bf16(value(2 * p + 1))) << 16;
  }
}

#if defined(__x86_64__)
namespace {

// 16 floats as bf16, as f32_to_bf16 rounds them.
THIMBLE_AVX512_INLINE __m256i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, up), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet));
}

// The row's elements from k on, zeros past its end.
THIMBLE_AVX512_INLINE __m512 load(const float* row, int64_t in, int64_t k) {
  if (k + 16 <= in) return _mm512_loadu_ps(row + k);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << std::max<int64_t>(in - k, 0)) - 1), row + k);
}

// Columns of 16 rows of dwords, up to `count` of them, [column][rows].
THIMBLE_AVX512_INLINE void store_columns(__m512i v[16], int rows, int64_t count,
                                                                        void* to) {
  transpose(v);
  const auto mask = static_cast<__mmask16>((1u << rows) - 1);
  for (int64_t i = 0; i < std::min<int64_t>(16, count); ++i)
    _mm512_mask_storeu_epi32(static_cast<uint32_t*>(to) + i * rows, mask, v[i]);
}

}  // namespace

THIMBLE_AVX512 void lay_out_floats_avx512(const float* x, int64_t in, const FloatTile& out) {
  const int64_t count = (in + 1) / 2;
  __m512i v[kMaxRows];
  for (int r = out.valid; r < kMaxRows; ++r) v[r] = _mm512_setzero_si512();
  if (out.values != nullptr)
    for (int64_t k = 0; k < 2 * count; k += 16) {
      __m512i columns[kMaxRows];
      for (int r = 0; r < out.valid; ++r) v[r] = _mm512_castps_si512(load(x + r * in, in, k));
      std::copy(v, v + kMaxRows, columns);
      store_columns(columns, out.rows, 2 * count - k, out.values + k * out.rows);
    }
  if (out.pairs != nullptr)
    for (int64_t p = 0; p < count; p += 16) {
      __m512i columns[kMaxRows];
      for (int r = 0; r < out.valid; ++r)
        v[r] = _mm512_inserti64x4(_mm512_castsi256_si512(to_bf16(load(x + r * in, in, 2 * p))),
                                  to_bf16(load(x + r * in, in, 2 * p + 16)), 1);
      std::copy(v, v + kMaxRows, columns);
      store_columns(columns, out.rows, count - p, out.pairs + p * out.rows);
    }
}
#else
void lay_out_floats_avx512(const float*, int64_t, const FloatTile&) {}
#endif

}  // namespace thimble::packed
