#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/gemm_kernels.h"
#include "kernels/gemm_pack.h"
#include "kernels/scratch.h"
#include "kernels/unpack_bf16.h"
#include "tensor/quantize.h"

#define THIMBLE_NEON_BF16 __attribute__((target("arch=armv8.2-a+bf16")))

namespace thimble::gemm {
namespace {

constexpr int kWidth = 16;
constexpr int kRegisters = kWidth / 4;
constexpr int kMostRows = 6;  // 24 sums, a panel's four registers and one of the rows: 32 hold them

// kRows x 16 results in memory, or where the tile hangs over the result's right edge a copy of what is there of it.
template <int kRows>
class Results {
 public:
  Results(float* c, int64_t ldc, int cols, bool accumulate)
      : c_(c), ldc_(ldc), cols_(cols), at_(cols == kWidth ? c : edge_[0]), stride_(cols == kWidth ? ldc : kWidth) {
    if (cols != kWidth && accumulate)
      for (int m = 0; m < kRows; ++m)
        for (int j = 0; j < kWidth; ++j) edge_[m][j] = j < cols ? c[m * ldc + j] : 0.0f;
  }
  float* at(int m, int v) { return at_ + m * stride_ + 4 * v; }
  void finish() {
    if (cols_ != kWidth)
      for (int m = 0; m < kRows; ++m)
        for (int j = 0; j < cols_; ++j) c_[m * ldc_ + j] = edge_[m][j];
  }

 private:
  float* c_;
  int64_t ldc_;
  int cols_;
  float edge_[kRows][kWidth];
  float* at_;
  int64_t stride_;
};

// The sums of a tile stay in registers over the whole depth.
template <int kRows>
void tile(const TileInput<float>& input, float* c, int64_t ldc, int cols, bool accumulate) {
  float32x4_t sums[kRows][kRegisters];
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) sums[m][v] = vdupq_n_f32(0);
  const float* panel = input.panel;
  for (int part = 0; part < 2; ++part) {
    const int64_t stride = input.stride[part];
    const float* a = input.a[part];
    for (int64_t k = 0; k < input.depth[part]; ++k, panel += kWidth) {
      float32x4_t b[kRegisters];
#pragma GCC unroll 4
      for (int v = 0; v < kRegisters; ++v) b[v] = vld1q_f32(panel + 4 * v);
#pragma GCC unroll 6
      for (int m = 0; m < kRows; ++m) {
        const float32x4_t x = vld1q_dup_f32(a + m * stride + k);
#pragma GCC unroll 4
        for (int v = 0; v < kRegisters; ++v) sums[m][v] = vfmaq_f32(sums[m][v], x, b[v]);
      }
    }
  }
  Results<kRows> results(c, ldc, cols, accumulate);
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) {
      float* to = results.at(m, v);
      vst1q_f32(to, accumulate ? vaddq_f32(sums[m][v], vld1q_f32(to)) : sums[m][v]);
    }
  results.finish();
}

template <int kRows>
THIMBLE_NEON_BF16 void tile_bf16(const TileInput<uint16_t>& input, float* c, int64_t ldc, int cols, bool accumulate) {
  float32x4_t sums[kRows][kRegisters];
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) sums[m][v] = vdupq_n_f32(0);
  const uint16_t* panel = input.panel;
  for (int part = 0; part < 2; ++part) {
    const int64_t stride = input.stride[part];
    const uint16_t* a = input.a[part];
    for (int64_t k = 0; k < input.depth[part]; k += 2, panel += 2 * kWidth) {
      bfloat16x8_t b[kRegisters];  // pairs of four columns each
#pragma GCC unroll 4
      for (int v = 0; v < kRegisters; ++v) b[v] = vreinterpretq_bf16_u16(vld1q_u16(panel + 8 * v));
#pragma GCC unroll 6
      for (int m = 0; m < kRows; ++m) {
        uint32_t pair;
        __builtin_memcpy(&pair, a + m * stride + k, sizeof pair);
        const bfloat16x8_t x = vreinterpretq_bf16_u32(vdupq_n_u32(pair));
#pragma GCC unroll 4
        for (int v = 0; v < kRegisters; ++v) sums[m][v] = vbfdotq_f32(sums[m][v], x, b[v]);
      }
    }
  }
  Results<kRows> results(c, ldc, cols, accumulate);
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < kRegisters; ++v) {
      float* to = results.at(m, v);
      vst1q_f32(to, accumulate ? vaddq_f32(sums[m][v], vld1q_f32(to)) : sums[m][v]);
    }
  results.finish();
}

template <int... kIndex>
constexpr std::array<Tile<float>, sizeof...(kIndex)> make_tiles(std::integer_sequence<int, kIndex...>) {
  return {tile<kIndex + 1>...};
}
template <int... kIndex>
constexpr std::array<Tile<uint16_t>, sizeof...(kIndex)> make_bf16_tiles(std::integer_sequence<int, kIndex...>) {
  return {tile_bf16<kIndex + 1>...};
}
constexpr auto kTiles = make_tiles(std::make_integer_sequence<int, kMostRows>());
constexpr auto kBf16Tiles = make_bf16_tiles(std::make_integer_sequence<int, kMostRows>());

void unpack(const Tensor& w, int64_t row, int64_t k, int64_t n, uint16_t* out) {
  unpack_bf16(w.type, w.row(row) + dtype_bytes(w.type, k), n, out);
}
void unpack(const Tensor& w, int64_t row, int64_t k, int64_t n, float* out) {
  dequantize_row(w.type, w.row(row) + dtype_bytes(w.type, k), n, out);
}

// Four rows of four-byte words to to[word][width], four words at a time.
void transpose(const uint32_t* const rows[4], int64_t words, uint32_t* to, int width) {
  for (int64_t at = 0; at < words; at += 4) {
    const uint32x4_t a = vld1q_u32(rows[0] + at), b = vld1q_u32(rows[1] + at);
    const uint32x4_t c = vld1q_u32(rows[2] + at), d = vld1q_u32(rows[3] + at);
    const uint64x2_t ab_even = vreinterpretq_u64_u32(vtrn1q_u32(a, b));
    const uint64x2_t ab_odd = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    const uint64x2_t cd_even = vreinterpretq_u64_u32(vtrn1q_u32(c, d));
    const uint64x2_t cd_odd = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    const uint64x2_t turned[4] = {vtrn1q_u64(ab_even, cd_even), vtrn1q_u64(ab_odd, cd_odd),
                                  vtrn2q_u64(ab_even, cd_even), vtrn2q_u64(ab_odd, cd_odd)};
    for (int i = 0; i < 4 && at + i < words; ++i) vst1q_u32(to + (at + i) * width, vreinterpretq_u32_u64(turned[i]));
  }
}

template <class E>
void pack_rows(const Tensor& w, int64_t n, int cols, int64_t k, int64_t depth, int width, E* panel) {
  constexpr int64_t kPair = 4 / sizeof(E);
  const int64_t words = (depth + kPair - 1) / kPair;
  const int64_t stride = (words + 3) / 4 * 4 * kPair;  // what fills up a word, and four of them, is 0
  const Scratch<E> unpacked(static_cast<size_t>(4 * stride));
  for (int first = 0; first < width; first += 4) {
    const uint32_t* rows[4];
    for (int i = 0; i < 4; ++i) {
      E* row = unpacked.data() + i * stride;
      const int64_t there = first + i < cols ? depth : 0;
      if (there > 0) unpack(w, n + first + i, k, depth, row);
      std::fill(row + there, row + stride, E{});
      rows[i] = reinterpret_cast<const uint32_t*>(row);
    }
    transpose(rows, words, reinterpret_cast<uint32_t*>(panel) + first, width);
  }
}

// Two rows of w at a time, interleaved.
void pack_cols_bf16(const Tensor& w, int64_t n, int64_t cols, int64_t k, int64_t depth, int width, uint16_t* panel,
                    int64_t panel_stride) {
  const int64_t stride = (cols + width - 1) / width * width;
  const Scratch<uint16_t> unpacked(static_cast<size_t>(2 * stride));
  uint16_t* const even = unpacked.data();
  uint16_t* const odd = even + stride;
  std::fill(even, odd + stride, uint16_t{0});
  for (int64_t row = 0; row < depth; row += 2, panel += 2 * width) {
    unpack(w, k + row, n, cols, even);
    if (row + 1 < depth)
      unpack(w, k + row + 1, n, cols, odd);
    else
      std::fill(odd, odd + cols, uint16_t{0});
    uint16_t* to = panel;
    for (int64_t first = 0; first < cols; first += width, to += panel_stride)
      for (int64_t j = 0; j < width; j += 8)
        vst2q_u16(to + 2 * j, uint16x8x2_t{{vld1q_u16(even + first + j), vld1q_u16(odd + first + j)}});
  }
}

}  // namespace

const Kernels<float>& neon_kernels() {
  static const Kernels<float> kernels{1, {{kWidth, kMostRows, kTiles.data()}, {}, {}}, pack_rows<float>, pack_cols_f32};
  return kernels;
}

const Kernels<uint16_t>& neon_bf16_kernels() {
  static const Kernels<uint16_t> kernels{
      2, {{kWidth, kMostRows, kBf16Tiles.data()}, {}, {}}, pack_rows<uint16_t>, pack_cols_bf16};
  return kernels;
}

}  // namespace thimble::gemm

#endif
