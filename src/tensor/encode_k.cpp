#include "tensor/encode_k.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/half.h"

namespace thimble {
namespace {

// The sub-blocks of a block are searched side by side, one a vector lane, so that each one's sums still run in the
// reference's order: the results are its own to the last bit, and a loop over lanes becomes vector code.
template <int kLanes>
using Lanes = float[kLanes];

// Nearest integer, halves to even, of |value| < 2^22; anything else gives some integer, the same as in the reference.
inline int32_t nearest(float value) {
  return (std::bit_cast<int32_t>(value + 12582912.0f) & 0x007fffff) - 0x00400000;
}
inline int32_t nearest(float value, int low, int high) { return std::max(low, std::min(high, nearest(value))); }

// [element][sub-block] of a block's values
template <int kLanes, int kLength>
void transpose(const float* x, Lanes<kLanes>* out) {
  for (int s = 0; s < kLanes; ++s)
    for (int l = 0; l < kLength; ++l) out[l][s] = x[kLength * s + l];
}

// value = scale * level - min, for the eight sub-blocks of Q4_K and Q5_K.
struct AffineFit {
  static constexpr int kSubs = 8, kLength = 32;
  Lanes<kSubs> scale, min;
  int32_t levels[kLength][kSubs];
};

// Tries `steps` + 1 spacings of the levels, from (top + first) steps over the range on, each a tenth of a step wider,
// and solves for scale and min by weighted least squares. A better fit's min is where the next spacings begin.
void fit(const float* x, int top, float first, int steps, AffineFit& out) {
  constexpr int kSubs = AffineFit::kSubs, kLength = AffineFit::kLength;
  Lanes<kSubs> value[kLength], weight[kLength];
  transpose<kSubs, kLength>(x, value);

  Lanes<kSubs> sum_w = {}, sum_x = {}, size = {};
  for (const auto& v : value)
    for (int s = 0; s < kSubs; ++s) size[s] += v[s] * v[s];
  for (int s = 0; s < kSubs; ++s) size[s] = std::sqrt(size[s] / kLength);
  for (int l = 0; l < kLength; ++l) {
    for (int s = 0; s < kSubs; ++s) {
      weight[l][s] = size[s] + std::fabs(value[l][s]);
      sum_w[s] += weight[l][s];
      sum_x[s] += weight[l][s] * value[l][s];
    }
  }
  Lanes<kSubs> low = {}, high;  // of the range that the levels span
  for (int s = 0; s < kSubs; ++s) high[s] = value[0][s];
  for (const auto& v : value) {
    for (int s = 0; s < kSubs; ++s) {
      low[s] = std::min(low[s], v[s]);
      high[s] = std::max(high[s], v[s]);
    }
  }

  Lanes<kSubs> inverse, best_inverse, best_low, best_error = {};
  bool flat[kSubs];
  for (int s = 0; s < kSubs; ++s) {
    flat[s] = high[s] == low[s];
    inverse[s] = best_inverse[s] = static_cast<float>(top) / (high[s] - low[s]);
    best_low[s] = low[s];
    out.scale[s] = 1.0f / inverse[s];
  }
  for (int l = 0; l < kLength; ++l) {
    for (int s = 0; s < kSubs; ++s) {
      const auto level = static_cast<float>(nearest(inverse[s] * (value[l][s] - low[s]), 0, top));
      const float difference = out.scale[s] * level + low[s] - value[l][s];
      best_error[s] += weight[l][s] * (difference * difference);
    }
  }
  for (int step = 0; step <= steps; ++step) {
    const float spacing = first + 0.1f * static_cast<float>(step) + static_cast<float>(top);
    Lanes<kSubs> level[kLength], sum_l = {}, sum_l2 = {}, sum_xl = {};
    for (int s = 0; s < kSubs; ++s) inverse[s] = spacing / (high[s] - low[s]);
    for (int l = 0; l < kLength; ++l) {
      for (int s = 0; s < kSubs; ++s) {
        level[l][s] = static_cast<float>(nearest(inverse[s] * (value[l][s] - low[s]), 0, top));
        const float weighted = weight[l][s] * level[l][s];
        sum_l[s] += weighted;
        sum_l2[s] += weighted * level[l][s];
        sum_xl[s] += weighted * value[l][s];
      }
    }
    Lanes<kSubs> determinant, scale, min, error = {};
    for (int s = 0; s < kSubs; ++s) {
      determinant[s] = sum_w[s] * sum_l2[s] - sum_l[s] * sum_l[s];
      scale[s] = (sum_w[s] * sum_xl[s] - sum_x[s] * sum_l[s]) / determinant[s];
      min[s] = (sum_l2[s] * sum_x[s] - sum_l[s] * sum_xl[s]) / determinant[s];
      const bool above = min[s] > 0;  // a min above zero can't be stored
      scale[s] = above ? sum_xl[s] / sum_l2[s] : scale[s];
      min[s] = above ? 0.0f : min[s];
    }
    for (int l = 0; l < kLength; ++l) {
      for (int s = 0; s < kSubs; ++s) {
        const float difference = scale[s] * level[l][s] + min[s] - value[l][s];
        error[s] += weight[l][s] * (difference * difference);
      }
    }
    for (int s = 0; s < kSubs; ++s) {
      if (!(determinant[s] > 0) || !(error[s] < best_error[s])) continue;
      best_error[s] = error[s];
      best_inverse[s] = inverse[s];
      best_low[s] = low[s];
      out.scale[s] = scale[s];
      low[s] = min[s];
    }
  }
  for (int s = 0; s < kSubs; ++s) {
    if (flat[s]) out.scale[s] = 0;
    out.min[s] = -low[s];
    for (int l = 0; l < kLength; ++l)
      out.levels[l][s] = flat[s] ? 0 : nearest(best_inverse[s] * (value[l][s] - best_low[s]), 0, top);
  }
}

// The inverse of scale_min_k4.
void pack_scales(const uint8_t* scales, const uint8_t* mins, uint8_t* packed) {
  for (int s = 0; s < 4; ++s) {
    packed[s] = static_cast<uint8_t>(scales[s] | ((scales[s + 4] >> 4) << 6));
    packed[s + 4] = static_cast<uint8_t>(mins[s] | ((mins[s + 4] >> 4) << 6));
    packed[s + 8] = static_cast<uint8_t>((scales[s + 4] & 0xf) | ((mins[s + 4] & 0xf) << 4));
  }
}

// Scales and mins of both kinds, and the levels that belong to them, [sub-block * 32 + element].
template <class Block>
void encode_affine(const float* x, int top, float first, int steps, Block& b, uint8_t* levels) {
  AffineFit found;
  fit(x, top, first, steps, found);
  const float max_scale = std::max(0.0f, *std::max_element(found.scale, found.scale + 8));
  const float max_min = std::max(0.0f, *std::max_element(found.min, found.min + 8));
  const float inverse_scale = max_scale > 0 ? 63.0f / max_scale : 0.0f;
  const float inverse_min = max_min > 0 ? 63.0f / max_min : 0.0f;
  uint8_t scales[8], mins[8];
  for (int s = 0; s < 8; ++s) {
    scales[s] = std::min<uint8_t>(63, static_cast<uint8_t>(nearest(inverse_scale * found.scale[s])));
    mins[s] = std::min<uint8_t>(63, static_cast<uint8_t>(nearest(inverse_min * found.min[s])));
  }
  pack_scales(scales, mins, b.scales);
  b.scale = f32_to_f16(max_scale / 63.0f);
  b.min = f32_to_f16(max_min / 63.0f);
  for (int s = 0; s < 8; ++s) {
    const float d = f16_to_f32(b.scale) * static_cast<float>(scales[s]);
    const float m = f16_to_f32(b.min) * static_cast<float>(mins[s]);
    for (int l = 0; l < 32; ++l) {
      const int level = d == 0 ? found.levels[l][s] : nearest((x[32 * s + l] + m) / d, 0, top);
      levels[32 * s + l] = static_cast<uint8_t>(level);
    }
  }
}

// Low halves of the levels as both kinds hold them.
void pack_low_halves(const uint8_t* levels, uint8_t* quants) {
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l)
      quants[32 * pair + l] =
          static_cast<uint8_t>((levels[64 * pair + l] & 0xf) | ((levels[64 * pair + 32 + l] & 0xf) << 4));
}

// value = scale * level, for the sixteen sub-blocks of Q6_K; levels from 0 on, 32 is the value 0.
struct SymmetricFit {
  static constexpr int kSubs = 16, kLength = 16;
  Lanes<kSubs> scale;
  int32_t levels[kLength][kSubs];
};

constexpr float kNothing = 1e-15f;  // what is smaller counts as zero, as in the reference

// Tries 19 spacings of the levels around 32 to the value of largest magnitude; squares of values are the weights.
void fit(const float* x, SymmetricFit& out) {
  constexpr int kSubs = SymmetricFit::kSubs, kLength = SymmetricFit::kLength, kTop = 32;
  Lanes<kSubs> value[kLength], magnitude = {}, extreme = {};
  transpose<kSubs, kLength>(x, value);
  for (const auto& v : value) {
    for (int s = 0; s < kSubs; ++s) {
      const bool larger = std::fabs(v[s]) > magnitude[s];
      magnitude[s] = larger ? std::fabs(v[s]) : magnitude[s];
      extreme[s] = larger ? v[s] : extreme[s];
    }
  }
  Lanes<kSubs> inverse, best_inverse, best;
  const auto sums = [&](Lanes<kSubs>& sum_xl, Lanes<kSubs>& sum_l2) {
    for (int s = 0; s < kSubs; ++s) sum_xl[s] = sum_l2[s] = 0;
    for (const auto& v : value) {
      for (int s = 0; s < kSubs; ++s) {
        const auto level = static_cast<float>(nearest(inverse[s] * v[s], -kTop, kTop - 1));
        const float weight = v[s] * v[s];
        sum_xl[s] += weight * v[s] * level;
        sum_l2[s] += weight * level * level;
      }
    }
  };
  Lanes<kSubs> sum_xl, sum_l2;
  for (int s = 0; s < kSubs; ++s) inverse[s] = best_inverse[s] = static_cast<float>(-kTop) / extreme[s];
  sums(sum_xl, sum_l2);
  for (int s = 0; s < kSubs; ++s) {
    out.scale[s] = sum_l2[s] != 0 ? sum_xl[s] / sum_l2[s] : 0.0f;
    best[s] = out.scale[s] * sum_xl[s];
  }
  for (int step = -9; step <= 9; ++step) {
    if (step == 0) continue;
    const float spacing = -(static_cast<float>(kTop) + 0.1f * static_cast<float>(step));
    for (int s = 0; s < kSubs; ++s) inverse[s] = spacing / extreme[s];
    sums(sum_xl, sum_l2);
    for (int s = 0; s < kSubs; ++s) {
      if (!(sum_l2[s] > 0) || !(sum_xl[s] * sum_xl[s] > best[s] * sum_l2[s])) continue;
      out.scale[s] = sum_xl[s] / sum_l2[s];
      best[s] = out.scale[s] * sum_xl[s];
      best_inverse[s] = inverse[s];
    }
  }
  for (int s = 0; s < kSubs; ++s) {
    const bool nothing = magnitude[s] < kNothing;
    if (nothing) out.scale[s] = 0;
    for (int l = 0; l < kLength; ++l)
      out.levels[l][s] = nothing ? 0 : kTop + nearest(best_inverse[s] * value[l][s], -kTop, kTop - 1);
  }
}

}  // namespace

void encode(const float* x, BlockQ4_K& b) {
  uint8_t levels[kSuperBlock];
  encode_affine(x, 15, -1.0f, 20, b, levels);
  pack_low_halves(levels, b.quants);
}

void encode(const float* x, BlockQ5_K& b) {
  uint8_t levels[kSuperBlock];
  encode_affine(x, 31, -0.5f, 15, b, levels);
  pack_low_halves(levels, b.quants);
  for (int l = 0; l < 32; ++l) {
    int bits = 0;
    for (int s = 0; s < 8; ++s) bits |= (levels[32 * s + l] >> 4) << s;
    b.high[l] = static_cast<uint8_t>(bits);
  }
}

void encode(const float* x, BlockQ6_K& b) {
  SymmetricFit found;
  fit(x, found);
  float extreme = 0;
  for (const float scale : found.scale)
    if (std::fabs(scale) > std::fabs(extreme)) extreme = scale;
  if (std::fabs(extreme) < kNothing) {
    std::memset(&b, 0, sizeof b);
    return;
  }
  const float inverse = -128.0f / extreme;
  b.scale = f32_to_f16(1.0f / inverse);
  uint8_t levels[kSuperBlock];
  for (int s = 0; s < SymmetricFit::kSubs; ++s) {
    b.scales[s] = static_cast<int8_t>(std::min(127, nearest(inverse * found.scale[s])));
    const float d = f16_to_f32(b.scale) * static_cast<float>(b.scales[s]);
    for (int l = 0; l < SymmetricFit::kLength; ++l) {
      const int level = d == 0 ? found.levels[l][s] : 32 + nearest(x[16 * s + l] / d, -32, 31);
      levels[16 * s + l] = static_cast<uint8_t>(level);
    }
  }
  for (int half = 0; half < 2; ++half) {
    const uint8_t* q = levels + 128 * half;
    for (int l = 0; l < 32; ++l) {
      b.low[64 * half + l] = static_cast<uint8_t>((q[l] & 0xf) | ((q[l + 64] & 0xf) << 4));
      b.low[64 * half + l + 32] = static_cast<uint8_t>((q[l + 32] & 0xf) | ((q[l + 96] & 0xf) << 4));
      b.high[32 * half + l] = static_cast<uint8_t>((q[l] >> 4) | ((q[l + 32] >> 4) << 2) | ((q[l + 64] >> 4) << 4) |
                                                   ((q[l + 96] >> 4) << 6));
    }
  }
}

}  // namespace thimble
