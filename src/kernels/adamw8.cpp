#include "kernels/adamw8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/simd.h"

namespace thimble {
namespace {

using Shares = std::array<float, 256>;

// Decade i of 7 has 2^i shares of a sign, or 2^(i+1) without signs: the middles of as many equal parts of [0.1, 1],
// times the decade; and 0 and 1.
Shares make_shares(bool with_sign) {
  std::vector<float> out = {0.0f, 1.0f};
  for (int decade = 0; decade < 7; ++decade) {
    const int parts = 1 << (with_sign ? decade : decade + 1);
    for (int i = 0; i < parts; ++i) {
      const double middle = 0.1 + 0.9 * (i + 0.5) / parts;
      const auto share = static_cast<float>(middle * std::pow(10.0, decade - 6));
      out.push_back(share);
      if (with_sign) out.push_back(-share);
    }
  }
  std::sort(out.begin(), out.end());
  Shares shares{};
  std::copy(out.begin(), out.end(), shares.begin());
  return shares;
}

// Finds the nearest share from the bits of a magnitude in [0, 1]: its exponent and 5 bits of its fraction name a short
// piece of the line, and the search goes on from the first share there.
class Nearest {
 public:
  explicit Nearest(const Shares& shares) {
    for (size_t i = 0; i + 1 < shares.size(); ++i) middles_[i] = 0.5f * (shares[i] + shares[i + 1]);
    middles_.back() = 2;  // nothing lies above
    for (uint32_t piece = 0; piece < kPieces; ++piece) {
      const float low = std::bit_cast<float>(piece << kShift);
      positive_[piece] = nearest_share(shares, low);
      negative_[piece] = nearest_share(shares, -std::bit_cast<float>(((piece + 1) << kShift) - 1));
    }
  }
  uint8_t operator()(float x) const {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    const uint32_t piece = std::min((bits & 0x7fffffffu) >> kShift, kPieces - 1);
    uint32_t code = (bits >> 31) != 0 ? negative_[piece] : positive_[piece];
    while (x > middles_[code]) ++code;
    return static_cast<uint8_t>(code);
  }

 private:
  static constexpr uint32_t kShift = 18;
  static constexpr uint32_t kPieces = (0x3f800000u >> kShift) + 1;  // up to 1
  std::array<float, 256> middles_{};
  std::array<uint8_t, kPieces> positive_{}, negative_{};
};

const Nearest& nearest_signed() {
  static const Nearest nearest(signed_shares());
  return nearest;
}
const Nearest& nearest_unsigned() {
  static const Nearest nearest(unsigned_shares());
  return nearest;
}

}  // namespace

const Shares& signed_shares() {
  static const Shares shares = make_shares(true);
  return shares;
}
const Shares& unsigned_shares() {
  static const Shares shares = make_shares(false);
  return shares;
}

uint8_t nearest_share(const Shares& shares, float x) {
  size_t best = 0;
  for (size_t i = 1; i < shares.size(); ++i)
    if (x > 0.5f * (shares[i - 1] + shares[i])) best = i;
  return static_cast<uint8_t>(best);
}

void adamw8_step(const AdamWSettings& settings, int64_t step, float gradient_scale, const float* gradients,
                 int64_t count, float* parameters, const Moments8& moments) {
  const double t = static_cast<double>(step);
  const float step_size =
      static_cast<float>(settings.learning_rate / (1.0 - std::pow(static_cast<double>(settings.beta1), t)));
  const float root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(static_cast<double>(settings.beta2), t)));
  const float keep = 1.0f - settings.learning_rate * settings.weight_decay;
  const float beta1 = settings.beta1, beta2 = settings.beta2, epsilon = settings.epsilon;
  const Shares &m_shares = signed_shares(), &v_shares = unsigned_shares();
  const Nearest &m_nearest = nearest_signed(), &v_nearest = nearest_unsigned();
  const int64_t blocks = (count + kAdamW8Block - 1) / kAdamW8Block;
  constexpr int64_t kBlocks = 64;
  threads().parallel_for((blocks + kBlocks - 1) / kBlocks, [&](int64_t task, int) {
    float m[kAdamW8Block], v[kAdamW8Block];
    for (int64_t b = task * kBlocks; b < std::min(blocks, (task + 1) * kBlocks); ++b) {
      const int64_t first = b * kAdamW8Block, n = std::min(kAdamW8Block, count - first);
      const float *g = gradients + first;
      float* p = parameters + first;
      uint8_t *m_codes = moments.m + first, *v_codes = moments.v + first;
      for (int64_t i = 0; i < n; ++i) {
        m[i] = m_shares[m_codes[i]] * moments.m_scales[b];
        v[i] = v_shares[v_codes[i]] * moments.v_scales[b];
      }
      simd::with_simd([&]() __attribute__((always_inline)) {
        for (int64_t i = 0; i < n; ++i) {
          const float scaled = g[i] * gradient_scale;
          m[i] = beta1 * m[i] + (1.0f - beta1) * scaled;
          v[i] = beta2 * v[i] + (1.0f - beta2) * scaled * scaled;
          p[i] = p[i] * keep - step_size * m[i] / (__builtin_sqrtf(v[i]) * root + epsilon);
        }
      });
      float m_most = 0, v_most = 0;
      for (int64_t i = 0; i < n; ++i) {
        m_most = std::max(m_most, std::fabs(m[i]));
        v_most = std::max(v_most, v[i]);
      }
      moments.m_scales[b] = m_most;
      moments.v_scales[b] = v_most;
      const float m_factor = m_most > 0 ? 1 / m_most : 0, v_factor = v_most > 0 ? 1 / v_most : 0;
      for (int64_t i = 0; i < n; ++i) {
        m_codes[i] = m_nearest(std::clamp(m[i] * m_factor, -1.0f, 1.0f));
        v_codes[i] = v[i] > 0 ? std::max<uint8_t>(1, v_nearest(std::min(v[i] * v_factor, 1.0f))) : 0;
      }
    }
  });
}

}  // namespace thimble
