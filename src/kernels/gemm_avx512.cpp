#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/avx512_transpose.h"
#include "kernels/gemm_kernels.h"
#include "kernels/gemm_pack.h"
#include "kernels/scratch.h"
#include "kernels/target.h"
#include "kernels/unpack_bf16.h"
#include "tensor/quantize.h"

namespace thimble::gemm {
namespace {

THIMBLE_AVX512_BF16 inline __m512 multiply_add(__m512 sum, const uint16_t* pair, __m512i panel) {
  int32_t both;
  __builtin_memcpy(&both, pair, sizeof both);
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(both), (__m512bh)panel);
}
THIMBLE_AVX512_BF16 inline __m512 multiply_add(__m512 sum, const float* value, __m512i panel) {
  return _mm512_fmadd_ps(_mm512_set1_ps(*value), _mm512_castsi512_ps(panel), sum);
}

// kRows x (16 kVectors) results in registers over the whole depth. One step takes four bytes of each row: a pair of
// bf16 or one float. Rows are reached from every third one's pointer, which keeps the addresses in registers.
template <class E, int kRows, int kVectors>
THIMBLE_AVX512_BF16 void tile(const TileInput<E>& input, float* c, int64_t ldc, int cols, bool accumulate) {
  constexpr int kStep = 4 / sizeof(E);
  __m512 sums[kRows][kVectors];
  __mmask16 masks[kVectors];
  for (int v = 0; v < kVectors; ++v) masks[v] = static_cast<__mmask16>((1u << std::clamp(cols - 16 * v, 0, 16)) - 1);
#pragma GCC unroll 14
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      sums[m][v] = _mm512_setzero_ps();
      if (16 * v < cols) __builtin_prefetch(c + m * ldc + 16 * v, 1);  // there when the sums are done
    }

  const E* panel = input.panel;
  for (int part = 0; part < 2; ++part) {
    const int64_t stride = input.stride[part];
    const E* a[5];
#pragma GCC unroll 5
    for (int g = 0; g < 5; ++g) a[g] = input.a[part] + (3 * g < kRows ? 3 * g * stride : 0);
    for (int64_t k = 0; k < input.depth[part]; k += kStep) {
      __m512i b[kVectors];
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) b[v] = _mm512_loadu_si512(panel + 16 * kStep * v);
      panel += 16 * kStep * kVectors;
#pragma GCC unroll 14
      for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 3
        for (int v = 0; v < kVectors; ++v) sums[m][v] = multiply_add(sums[m][v], a[m / 3] + (m % 3) * stride, b[v]);
#pragma GCC unroll 5
      for (int g = 0; g < 5; ++g) a[g] += kStep;
    }
  }
#pragma GCC unroll 14
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + m * ldc + 16 * v;
      if (accumulate) sums[m][v] = _mm512_add_ps(sums[m][v], _mm512_maskz_loadu_ps(masks[v], to));
      _mm512_mask_storeu_ps(to, masks[v], sums[m][v]);
    }
}

template <class E, int kVectors, int... kIndex>
constexpr std::array<Tile<E>, sizeof...(kIndex)> make_tiles(std::integer_sequence<int, kIndex...>) {
  return {tile<E, kIndex + 1, kVectors>...};
}
template <class E, int kVectors, int kRows>
constexpr std::array<Tile<E>, kRows> kTiles = make_tiles<E, kVectors>(std::make_integer_sequence<int, kRows>());

// Stored elements [k, k + n) of a row, as E.
void unpack(const Tensor& w, int64_t row, int64_t k, int64_t n, uint16_t* out) {
  unpack_bf16(w.type, w.row(row) + dtype_bytes(w.type, k), n, out);
}
void unpack(const Tensor& w, int64_t row, int64_t k, int64_t n, float* out) {
  dequantize_row(w.type, w.row(row) + dtype_bytes(w.type, k), n, out);
}
template <class E>
constexpr DType kStored = sizeof(E) == 4 ? DType::kF32 : DType::kBF16;

// 16 rows of `words` four-byte words each (source rows stride words apart) to panel[word][width], at most `rows` of
// them; the others are 0.
THIMBLE_AVX512_BF16 void transpose_rows(const std::byte* const rows[16], int64_t bytes, uint32_t* panel, int width) {
  for (int64_t at = 0; at < bytes; at += 64) {
    const int64_t left = bytes - at;
    __m512i r[16];
    if (left >= 64) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = rows[i] != nullptr ? _mm512_loadu_si512(rows[i] + at) : _mm512_setzero_si512();
    } else {
      const auto mask = static_cast<__mmask32>((uint64_t{1} << (left / 2)) - 1);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = rows[i] != nullptr ? _mm512_maskz_loadu_epi16(mask, rows[i] + at) : _mm512_setzero_si512();
    }
    transpose(r);
    uint32_t* to = panel + at / 4 * width;
    const int64_t steps = std::min<int64_t>(16, (left + 3) / 4);
    if (steps == 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * width, r[i]);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (i < steps) _mm512_storeu_si512(to + i * width, r[i]);
    }
  }
}

template <class E>
void pack_rows(const Tensor& w, int64_t n, int cols, int64_t k, int64_t depth, int width, E* panel) {
  const bool direct = w.type == kStored<E>;
  const int64_t stride = (depth + 31) / 32 * 32 + 32;  // not a power of two: rows would share a cache set
  const Scratch<E> unpacked(static_cast<size_t>(direct ? 0 : 16 * stride));
  for (int first = 0; first < width; first += 16) {
    const std::byte* rows[16] = {};
    for (int i = 0; i < std::min(16, cols - first); ++i) {
      if (direct) {
        rows[i] = w.row(n + first + i) + static_cast<size_t>(k) * sizeof(E);
        continue;
      }
      E* row = unpacked.data() + i * stride;
      unpack(w, n + first + i, k, depth, row);
      rows[i] = reinterpret_cast<const std::byte*>(row);
    }
    transpose_rows(rows, depth * static_cast<int64_t>(sizeof(E)), reinterpret_cast<uint32_t*>(panel) + first, width);
  }
}

// Two rows of `cols` bf16 each, interleaved: panel p takes columns [p width, (p + 1) width).
THIMBLE_AVX512_BF16 void interleave(const uint16_t* even, const uint16_t* odd, int64_t cols, int width, uint16_t* panel,
                                    int64_t panel_stride) {
  alignas(64) static constexpr auto kIndex = [] {
    std::array<uint16_t, 32> index{};
    for (uint16_t i = 0; i < 16; ++i) {
      index[2 * i] = i;
      index[2 * i + 1] = static_cast<uint16_t>(32 + i);
    }
    return index;
  }();
  const __m512i low = _mm512_load_si512(kIndex.data());
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const int64_t vectors = (cols + width - 1) / width * (width / 16);
  uint16_t* to = panel;
  const auto put = [&](__m512i pairs) THIMBLE_AVX512_BF16 {
    _mm512_storeu_si512(to, pairs);
    to += 32;
    if (to == panel + 2 * width) to = panel += panel_stride;
  };
  const auto columns = [&](const uint16_t* row, int64_t v) THIMBLE_AVX512_BF16 {  // masked loads of words are slow
    if (row == nullptr) return _mm512_setzero_si512();
    if (16 * v + 32 <= cols) return _mm512_loadu_si512(row + 16 * v);
    const auto mask = static_cast<__mmask32>((uint64_t{1} << std::clamp<int64_t>(cols - 16 * v, 0, 32)) - 1);
    return _mm512_maskz_loadu_epi16(mask, row + 16 * v);
  };
  for (int64_t v = 0; v < vectors; v += 2) {
    const __m512i a = columns(even, v), b = columns(odd, v);
    put(_mm512_permutex2var_epi16(a, low, b));
    if (v + 1 < vectors) put(_mm512_permutex2var_epi16(a, high, b));
  }
}

void pack_cols(const Tensor& w, int64_t n, int64_t cols, int64_t k, int64_t depth, int width, uint16_t* panel,
               int64_t panel_stride) {
  const bool direct = w.type == DType::kBF16;
  const Scratch<uint16_t> unpacked(static_cast<size_t>(direct ? 0 : 2 * (cols + 32)));
  for (int64_t row = 0; row < depth; row += 2, panel += 2 * width) {
    const uint16_t* rows[2] = {};
    for (int64_t i = 0; i < std::min<int64_t>(2, depth - row); ++i) {
      if (direct) {
        rows[i] = reinterpret_cast<const uint16_t*>(w.row(k + row + i)) + n;
        continue;
      }
      uint16_t* to = unpacked.data() + i * (cols + 32);
      unpack(w, k + row + i, n, cols, to);
      rows[i] = to;
    }
    interleave(rows[0], rows[1], cols, width, panel, panel_stride);
  }
}

void pack_cols(const Tensor& w, int64_t n, int64_t cols, int64_t k, int64_t depth, int width, float* panel,
               int64_t panel_stride) {
  pack_cols_f32(w, n, cols, k, depth, width, panel, panel_stride);
}

template <class E>
Kernels<E> make_kernels() {
  Kernels<E> kernels;
  kernels.pair = 4 / sizeof(E);
  kernels.sets[0] = {16, 14, kTiles<E, 1, 14>.data()};
  kernels.sets[1] = {32, 14, kTiles<E, 2, 14>.data()};
  kernels.sets[2] = {48, 9, kTiles<E, 3, 9>.data()};
  kernels.pack_rows = pack_rows<E>;
  kernels.pack_cols = pack_cols;
  return kernels;
}

}  // namespace

const Kernels<uint16_t>& bf16_kernels() {
  static const Kernels<uint16_t> kernels = make_kernels<uint16_t>();
  return kernels;
}

const Kernels<float>& avx512_kernels() {
  static const Kernels<float> kernels = make_kernels<float>();
  return kernels;
}

}  // namespace thimble::gemm

#endif
