#include <algorithm>

#include "kernels/gemm_kernels.h"
#include "kernels/gemm_pack.h"

namespace thimble::gemm {
namespace {

constexpr int kWidth = 16;

// Loops of fixed length, which compilers turn into whatever vectors the baseline has.
template <int kRows>
void tile(const TileInput<float>& input, float* c, int64_t ldc, int cols, bool accumulate) {
  float sums[kRows][kWidth] = {};
  const float* panel = input.panel;
  for (int part = 0; part < 2; ++part)
    for (int64_t k = 0; k < input.depth[part]; ++k, panel += kWidth)
      for (int m = 0; m < kRows; ++m) {
        const float factor = input.a[part][m * input.stride[part] + k];
        for (int j = 0; j < kWidth; ++j) sums[m][j] += factor * panel[j];
      }
  for (int m = 0; m < kRows; ++m)
    for (int j = 0; j < cols; ++j) c[m * ldc + j] = (accumulate ? c[m * ldc + j] : 0.0f) + sums[m][j];
}

constexpr Tile<float> kTiles[] = {tile<1>, tile<2>, tile<3>};

}  // namespace

const Kernels<float>& plain_kernels() {
  static const Kernels<float> kernels{1, {{kWidth, 3, kTiles}, {}, {}}, pack_rows_f32, pack_cols_f32};
  return kernels;
}

}  // namespace thimble::gemm
