#if defined(__x86_64__)

#include <immintrin.h>

#include <array>
#include <utility>

#include "kernels/gemm_kernels.h"
#include "kernels/gemm_pack.h"

namespace thimble::gemm {
namespace {

constexpr int kWidth = 16;

// kRows x 16 results in registers over the whole depth.
template <int kRows>
[[gnu::target("avx2,fma")]] void tile(const TileInput<float>& input, float* c, int64_t ldc, int cols, bool accumulate) {
  __m256 sums[kRows][2];
  float edge[kRows][kWidth];  // where the tile hangs over the result's right edge
  float* to = cols == kWidth ? c : edge[0];
  const int64_t to_stride = cols == kWidth ? ldc : kWidth;
  if (cols != kWidth)
    for (int m = 0; m < kRows; ++m)
      for (int j = 0; j < kWidth; ++j) edge[m][j] = accumulate && j < cols ? c[m * ldc + j] : 0.0f;
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) sums[m][v] = _mm256_setzero_ps();
  const float* panel = input.panel;
  for (int part = 0; part < 2; ++part) {
    const int64_t stride = input.stride[part];
    const float* a = input.a[part];
    for (int64_t k = 0; k < input.depth[part]; ++k, panel += kWidth) {
      const __m256 b0 = _mm256_loadu_ps(panel), b1 = _mm256_loadu_ps(panel + 8);
#pragma GCC unroll 6
      for (int m = 0; m < kRows; ++m) {
        const __m256 x = _mm256_broadcast_ss(a + m * stride + k);
        sums[m][0] = _mm256_fmadd_ps(x, b0, sums[m][0]);
        sums[m][1] = _mm256_fmadd_ps(x, b1, sums[m][1]);
      }
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* at = to + m * to_stride + 8 * v;
      if (accumulate) sums[m][v] = _mm256_add_ps(sums[m][v], _mm256_loadu_ps(at));
      _mm256_storeu_ps(at, sums[m][v]);
    }
  if (cols != kWidth)
    for (int m = 0; m < kRows; ++m)
      for (int j = 0; j < cols; ++j) c[m * ldc + j] = edge[m][j];
}

template <int... kIndex>
constexpr std::array<Tile<float>, sizeof...(kIndex)> make_tiles(std::integer_sequence<int, kIndex...>) {
  return {tile<kIndex + 1>...};
}
constexpr auto kTiles = make_tiles(std::make_integer_sequence<int, 6>());

}  // namespace

const Kernels<float>& avx2_kernels() {
  static const Kernels<float> kernels{1, {{kWidth, 6, kTiles.data()}, {}, {}}, pack_rows_f32, pack_cols_f32};
  return kernels;
}

}  // namespace thimble::gemm

#endif
