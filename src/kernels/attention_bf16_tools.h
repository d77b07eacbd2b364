#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/attention_tiles.h"
#include "kernels/avx512_transpose.h"
#include "kernels/gemm_kernels.h"
#include "kernels/target.h"
#include "tensor/tensor.h"

// What forward and backward of attention in bf16 share. Scores are computed with keys as rows and queries as lanes:
// then softmax runs down the rows, what a query has of its own is a vector, and probabilities come out in the two forms
// that products read, without a transposition.
namespace thimble::attention_bf16 {

inline constexpr int kHalf = AttentionTiles::kHalf;
inline constexpr int kKeys = AttentionTiles::kKeys;
inline constexpr int kQueries = AttentionTiles::kQueries;
inline constexpr float kLog2E = 1.44269504088896341f;

inline Tensor matrix(const uint16_t* data, int64_t rows, int64_t cols) {
  return {DType::kBF16, {rows, cols}, reinterpret_cast<const std::byte*>(data), nullptr};
}

// c[rows, cols] (+)= a[rows, depth] · panels of 32 columns, which lie panel_stride elements apart. depth is even.
inline void product(int rows, int cols, const uint16_t* a, int64_t stride, int depth, const uint16_t* panels,
                    int64_t panel_stride, float* c, int64_t ldc, bool accumulate) {
  static const gemm::TileSet<uint16_t>& set = gemm::bf16_kernels().sets[1];
  const int tiles = (rows + set.rows - 1) / set.rows;
  for (int t = 0, row = 0; t < tiles; ++t) {
    const int count = rows / tiles + (t < rows % tiles ? 1 : 0);
    gemm::TileInput<uint16_t> input{{a + row * stride, nullptr}, {stride, 0}, {depth, 0}, panels};
    for (int n = 0; n < cols; n += kHalf, input.panel += panel_stride)
      set.tiles[count - 1](input, c + row * ldc + n, ldc, std::min(kHalf, cols - n), accumulate);
    row += count;
  }
}

// 2^x to about 3e-6 relative, far below what bf16 keeps of it; 1 for 0 and 0 for what is too small.
THIMBLE_AVX512_BF16 inline __m512 exp2(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.582852996e-3f);  // least relative error over [-0.5, 0.5]
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.590642458e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402409861e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931241934e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// Two rows of 16 lanes as pairs along the rows: what a panel holds.
THIMBLE_AVX512_BF16 inline __m512i paired(__m512 even, __m512 odd) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}

// The lanes of 16 queries from `first` on that see a key; all without masks.
inline __mmask16 seen(const AttentionTiles::Masks* masks, int key, int first) {
  return masks == nullptr ? __mmask16{0xffff} : static_cast<__mmask16>((*masks)[static_cast<size_t>(key)] >> first);
}

// `count` rows of `cols` elements with a stride of their own to [kKeys][cols], zeros behind them.
void pack_rows(const uint16_t* from, int64_t stride, int count, int cols, uint16_t* to);
// The same turned, [cols][kKeys].
void pack_turned(const uint16_t* from, int64_t stride, int count, int cols, uint16_t* to);
// turned [dim][kHalf] times factor [kHalf], the first `count` lanes as rows of `dim` at `to`.
void store_turned(const float* turned, int dim, const float* factor, int count, float* to, int64_t stride);

}  // namespace thimble::attention_bf16

#endif
