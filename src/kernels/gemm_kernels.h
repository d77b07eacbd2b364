#pragma once

#include <cstdint>
#include <functional>

#include "core/cpu.h"
#include "kernels/gemm.h"
#include "tensor/tensor.h"

// What one instruction set brings to the products of gemm.cpp: register tiles, and the packing of weight tiles.
// E is the element that is multiplied: float, or uint16_t for bf16. Inner elements are multiplied `pair` at a time
// (bf16 dot products take two), and all depths here are multiples of it.
//
// A panel is [depth / pair][width][pair]: `width` columns of the result, side by side in vectors.
namespace thimble::gemm {

// One factor of a sum of products: a [rows, depth] with a stride, times w. By rows: result column n, inner k is
// w[n, k] (forward); else w[k, n] (gradient of the input).
template <class E>
struct Factor {
  const E* a = nullptr;
  int64_t stride = 0;
  int64_t depth = 0;
  const Tensor* w = nullptr;
  bool by_rows = true;
};

template <class E>
struct TileInput {
  const E* a[2];  // the tile's rows of up to two factors
  int64_t stride[2];
  int64_t depth[2];  // 0: no second factor
  const E* panel;    // [depth[0] + depth[1]] deep
};

// c[rows of the tile, cols] (stride ldc) = the product, or added to what c holds; cols <= the panel's width.
template <class E>
using Tile = void (*)(const TileInput<E>& input, float* c, int64_t ldc, int cols, bool accumulate);

template <class E>
struct TileSet {
  int width = 0;                   // columns of a panel
  int rows = 0;                    // the most rows of a tile
  const Tile<E>* tiles = nullptr;  // tiles[m - 1] for m rows
};

template <class E>
struct Kernels {
  int pair = 1;
  TileSet<E> sets[3];  // by width, narrowest first
  // w's rows [n, n + cols) x columns [k, k + depth) to one panel of `width` columns; cols beyond are 0, and so is
  // what pads an odd depth.
  void (*pack_rows)(const Tensor& w, int64_t n, int cols, int64_t k, int64_t depth, int width, E* panel);
  // w's rows [k, k + depth) x columns [n, n + cols) to the panels that lie panel_stride elements apart, each at
  // `panel`, which already points at the place of row k.
  void (*pack_cols)(const Tensor& w, int64_t n, int64_t cols, int64_t k, int64_t depth, int width, E* panel,
                    int64_t panel_stride);
};

// For products whose factors or results never stand in memory whole.
template <class E>
struct Hooks {
  // Takes finished columns [n, n + cols) of rows [row, row + rows) instead of their being stored. Blocks of a row come
  // in order, `block` columns each (a multiple of 48), the last one shorter.
  std::function<void(const float* tile, int64_t stride, int64_t row, int64_t rows, int64_t n, int64_t cols)> finish;
  int64_t block = 0;
  // Makes the first factor's rows [row, row + rows), inner [k, k + depth), at out[rows, stride].
  std::function<void(int64_t row, int64_t rows, int64_t k, int64_t depth, E* out, int64_t stride)> prepare;
};

// c[rows, cols] (+)= sum of the factors' products. second.depth may be 0.
template <class E>
void multiply(const Kernels<E>& kernels, int64_t rows, int64_t cols, const Factor<E>& first, const Factor<E>& second,
              float* c, bool accumulate, const Hooks<E>& hooks = {});

const Kernels<float>& plain_kernels();  // any machine
#if defined(__x86_64__)
const Kernels<uint16_t>& bf16_kernels();  // CpuLevel::kAvx512Bf16
const Kernels<float>& avx512_kernels();   // CpuLevel::kAvx512
const Kernels<float>& avx2_kernels();     // CpuLevel::kAvx2
#elif defined(__aarch64__)
const Kernels<uint16_t>& neon_bf16_kernels();  // CpuLevel::kNeonBf16
const Kernels<float>& neon_kernels();          // CpuLevel::kNeon
#endif

// Calls body with the kernels for cpu_level().
template <class Body>
void with_kernels(GemmPrecision precision, const Body& body) {
#if defined(__x86_64__)
  const CpuLevel level = cpu_level();
  if (precision == GemmPrecision::kBF16 && level >= CpuLevel::kAvx512Bf16) return body(bf16_kernels());
  if (level >= CpuLevel::kAvx512) return body(avx512_kernels());
  if (level >= CpuLevel::kAvx2) return body(avx2_kernels());
#elif defined(__aarch64__)
  const CpuLevel level = cpu_level();
  if (precision == GemmPrecision::kBF16 && level == CpuLevel::kNeonBf16) return body(neon_bf16_kernels());
  if (level >= CpuLevel::kNeon) return body(neon_kernels());
#endif
  static_cast<void>(precision);
  body(plain_kernels());
}

}  // namespace thimble::gemm
