#if defined(__x86_64__)

#include "kernels/cross_entropy_bf16.h"

#include <immintrin.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "kernels/avx512_exp.h"
#include "kernels/gemm_operand.h"
#include "kernels/target.h"
#include "kernels/unpack_bf16.h"

namespace thimble {
namespace {

constexpr int64_t kBlock = 528;  // columns of logits that are in a cache at once: eleven panels

THIMBLE_AVX512_BF16 inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, 16)) - 1);
}

struct BlockSum {
  float top;    // the largest logit
  float total;  // sum of exp(logit - top)
};
// logits[n] -> their sum; exp(logit - top) as f16 to kept[n], or nowhere where kept is null
THIMBLE_AVX512_BF16 BlockSum keep_exponentials(const float* logits, int64_t n, uint16_t* kept) {
  __m512 tops = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < n; i += 16)
    tops = _mm512_max_ps(tops, _mm512_mask_loadu_ps(tops, first_lanes(n - i), logits + i));
  const float top = _mm512_reduce_max_ps(tops);
  const __m512 largest = _mm512_set1_ps(top);
  __m512 totals = _mm512_setzero_ps();
  const auto exponential = [&](__m512 logit) THIMBLE_AVX512_BF16 {
    const __m512 e = exp_avx512(_mm512_sub_ps(logit, largest));
    totals = _mm512_add_ps(totals, e);
    return _mm512_cvtps_ph(e, _MM_FROUND_TO_NEAREST_INT);
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {  // apart from the rest, because masked stores of words are slow
    const __m256i e = exponential(_mm512_loadu_ps(logits + i));
    if (kept != nullptr) _mm256_storeu_si256(reinterpret_cast<__m256i*>(kept + i), e);
  }
  if (i < n) {
    const __m256i e = exponential(_mm512_mask_loadu_ps(_mm512_set1_ps(-1e30f), first_lanes(n - i), logits + i));
    if (kept != nullptr) _mm256_mask_storeu_epi16(kept + i, first_lanes(n - i), e);
  }
  return {top, _mm512_reduce_add_ps(totals)};
}

// out[i] = bf16(kept[i] · factor)
THIMBLE_AVX512_BF16 void scale_kept(const uint16_t* kept, int64_t n, float factor, uint16_t* out) {
  const __m512 scale = _mm512_set1_ps(factor);
  const auto gradient = [&](__m256i e) THIMBLE_AVX512_BF16 {
    return (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_cvtph_ps(e), scale));
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        gradient(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(kept + i))));
  if (i < n) {
    const __mmask16 mask = first_lanes(n - i);
    _mm256_mask_storeu_epi16(out + i, mask, gradient(_mm256_maskz_loadu_epi16(mask, kept + i)));
  }
}

uint16_t bf16_of(float x) {
  uint16_t bits;
  round_bf16(&x, 1, 1, &bits);
  return bits;
}

}  // namespace

void cross_entropy_bf16(const CrossEntropy& args, float* row_losses) {
  const int64_t vocab = args.head->rows(), hidden = args.head->cols();
  const int64_t stride = (vocab + 31) / 32 * 32, blocks = (vocab + kBlock - 1) / kBlock;
  const int64_t slice = std::clamp<int64_t>(kLogitsBytes / (stride * 2), 1, std::max<int64_t>(args.rows, 1));
  const bool gradient = args.dhidden != nullptr;
  const Scratch<uint16_t> kept(static_cast<size_t>(gradient ? slice * stride : 0));
  const Scratch<BlockSum> sums(static_cast<size_t>(slice * blocks));
  const Scratch<float> target_logits(static_cast<size_t>(slice));
  const gemm::Kernels<uint16_t>& kernels = gemm::bf16_kernels();

  for (int64_t first = 0; first < args.rows; first += slice) {
    const int64_t rows = std::min(slice, args.rows - first);
    const int32_t* targets = args.targets + first;
    const gemm::Operand<uint16_t> h(GemmInput{args.hidden + first * hidden, rows, hidden});

    gemm::Hooks<uint16_t> forward;
    forward.block = kBlock;
    forward.finish = [&](const float* tile, int64_t tile_stride, int64_t row, int64_t count, int64_t n, int64_t cols) {
      for (int64_t r = row; r < row + count; ++r, tile += tile_stride) {
        if (targets[r] >= n && targets[r] < n + cols) target_logits[static_cast<size_t>(r)] = tile[targets[r] - n];
        sums[static_cast<size_t>(r * blocks + n / kBlock)] =
            keep_exponentials(tile, cols, gradient ? kept.data() + r * stride + n : nullptr);
      }
    };
    gemm::multiply<uint16_t>(kernels, rows, vocab, {h.data(), h.stride(), hidden, args.head, true}, {}, nullptr, false,
                             forward);

    for (int64_t r = 0; r < rows; ++r) {
      assert(targets[r] >= 0 && targets[r] < vocab);
      BlockSum* row = sums.data() + r * blocks;
      float top = row[0].top;
      for (int64_t b = 1; b < blocks; ++b) top = std::max(top, row[b].top);
      float total = 0;
      for (int64_t b = 0; b < blocks; ++b) total += row[b].total * std::exp(row[b].top - top);
      const float log_total = std::log(total);
      row_losses[first + r] = log_total + (top - target_logits[static_cast<size_t>(r)]);
      const float weight = args.row_weights != nullptr ? args.row_weights[first + r] : 1.0f;
      // from here on, `total` is the block's factor: kept · factor = weight · probability
      for (int64_t b = 0; b < blocks; ++b) row[b].total = weight * std::exp(row[b].top - top - log_total);
    }
    if (!gradient) continue;

    gemm::Hooks<uint16_t> backward;
    backward.prepare = [&](int64_t row, int64_t count, int64_t k, int64_t depth, uint16_t* out, int64_t out_stride) {
      for (int64_t r = row; r < row + count; ++r, out += out_stride) {
        for (int64_t at = k; at < k + depth;) {
          const int64_t block = at / kBlock, end = std::min(k + depth, (block + 1) * kBlock);
          scale_kept(kept.data() + r * stride + at, end - at, sums[static_cast<size_t>(r * blocks + block)].total,
                     out + (at - k));
          at = end;
        }
        for (int64_t i = depth; i < depth + depth % 2; ++i) out[i] = 0;
        if (targets[r] < k || targets[r] >= k + depth) continue;
        const float weight = args.row_weights != nullptr ? args.row_weights[first + r] : 1.0f;
        out[targets[r] - k] = bf16_of(-weight * (1 - std::exp(-row_losses[first + r])));
      }
    };
    gemm::multiply<uint16_t>(kernels, rows, hidden, {nullptr, 0, vocab, args.head, false}, {},
                             args.dhidden + first * hidden, false, backward);
  }
}

}  // namespace thimble

#endif
