#include "kernels/adamw8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/random.h"
#include "kernels/stochastic_rounding.h"
#include "tensor/half.h"

namespace thimble {
namespace {

TEST(AdamW8, SharesAreThePapersMap) {
  const auto &with_sign = signed_shares(), &without = unsigned_shares();
  EXPECT_EQ(with_sign.back(), 1.0f);
  EXPECT_EQ(without.back(), 1.0f);
  EXPECT_EQ(without.front(), 0.0f);
  EXPECT_TRUE(std::is_sorted(with_sign.begin(), with_sign.end()));
  EXPECT_EQ(std::count(with_sign.begin(), with_sign.end(), 0.0f), 1);
  EXPECT_NEAR(with_sign.front(), -(0.1 + 0.9 * 63.5 / 64), 1e-6);  // bitsandbytes.functional.create_dynamic_map()[0]
  EXPECT_NEAR(without[1], 1e-6 * (0.1 + 0.9 * 0.25), 1e-12);
}

// The fast step against the formulas with nearest_share.
TEST(AdamW8, StepsAsItsPlainForm) {
  Random random(1);
  const AdamWSettings settings{.learning_rate = 1e-2f, .weight_decay = 0.1f};
  for (const int64_t count : {1, 255, 256, 257, 20000}) {
    const auto n = static_cast<size_t>(count);
    const size_t blocks = (n + 255) / 256;
    std::vector<float> p(n), g(n), m_scales(blocks), v_scales(blocks);
    std::vector<uint8_t> m(n), v(n);
    for (float& x : p) x = random.normal();
    auto want_p = p, want_m_scales = m_scales, want_v_scales = v_scales;
    auto want_m = m, want_v = v;
    for (int64_t step = 1; step <= 3; ++step) {
      for (float& x : g) x = random.normal() * std::pow(10.0f, -6 * static_cast<float>(random.uniform()));
      if (n > 300) std::fill_n(g.begin(), 256, 0.0f);  // a block without gradients
      adamw8_step(settings, step, 0.5f, g.data(), count, p.data(), {m.data(), v.data(), m_scales.data(), v_scales.data()});
      std::vector<float> wide_m(n), wide_v(n);
      for (size_t i = 0; i < n; ++i) {
        wide_m[i] = signed_shares()[want_m[i]] * want_m_scales[i / 256];
        wide_v[i] = unsigned_shares()[want_v[i]] * want_v_scales[i / 256];
      }
      adamw_step(settings, step, 0.5f, g.data(), count, want_p.data(), wide_m.data(), wide_v.data());
      for (size_t b = 0; b < blocks; ++b) {
        const size_t first = b * 256, last = std::min(n, first + 256);
        float most_m = 0, most_v = 0;
        for (size_t i = first; i < last; ++i) {
          most_m = std::max(most_m, std::fabs(wide_m[i]));
          most_v = std::max(most_v, wide_v[i]);
        }
        want_m_scales[b] = most_m;
        want_v_scales[b] = most_v;
        for (size_t i = first; i < last; ++i) {
          want_m[i] = nearest_share(signed_shares(), most_m > 0 ? wide_m[i] * (1 / most_m) : 0);
          const uint8_t code = nearest_share(unsigned_shares(), most_v > 0 ? wide_v[i] * (1 / most_v) : 0);
          want_v[i] = wide_v[i] > 0 ? std::max<uint8_t>(code, 1) : 0;
        }
      }
      for (size_t i = 0; i < n; ++i) ASSERT_NEAR(p[i], want_p[i], 1e-5 * (1 + std::fabs(want_p[i]))) << i;
      // Vectorised sums may fall on the other side of a middle.
      size_t apart = 0;
      for (size_t i = 0; i < n; ++i) {
        ASSERT_LE(std::abs(m[i] - want_m[i]), 1);
        ASSERT_LE(std::abs(v[i] - want_v[i]), 1);
        apart += m[i] != want_m[i] || v[i] != want_v[i];
      }
      EXPECT_LE(apart, n / 1000);
      want_m = m, want_v = v, want_m_scales = m_scales, want_v_scales = v_scales, want_p = p;
    }
  }
}

// The paper's figure of merit: how far stored moments are from f32 ones.
TEST(AdamW8, StoredMomentsStayNear) {
  Random random(2);
  const int64_t count = 1 << 14;
  std::vector<float> p(count), q(count), g(count), m32(count), v32(count), m_scales(count / 256), v_scales(count / 256);
  std::vector<uint8_t> m(count), v(count);
  const AdamWSettings settings{.learning_rate = 1e-3f};
  for (int step = 1; step <= 50; ++step) {
    for (float& x : g) x = 1e-3f * random.normal();
    adamw8_step(settings, step, 1, g.data(), count, p.data(), {m.data(), v.data(), m_scales.data(), v_scales.data()});
    adamw_step(settings, step, 1, g.data(), count, q.data(), m32.data(), v32.data());
  }
  double m_error = 0, m_size = 0, v_error = 0, v_size = 0, moved = 0, apart = 0;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const double m8 = signed_shares()[m[i]] * m_scales[i / 256], v8 = unsigned_shares()[v[i]] * v_scales[i / 256];
    m_error += std::fabs(m8 - m32[i]);
    m_size += std::fabs(m32[i]);
    v_error += std::fabs(v8 - v32[i]);
    v_size += v32[i];
    moved += std::fabs(q[i]);
    apart += std::fabs(p[i] - q[i]);
  }
  EXPECT_LT(m_error / m_size, 0.03);
  EXPECT_LT(v_error / v_size, 0.03);
  EXPECT_LT(apart / moved, 0.05);
}

TEST(StochasticRounding, IsRightOnAverageAndExactWhereItCanBe) {
  const float low = 1.0f, high = bf16_to_f32(static_cast<uint16_t>(f32_to_bf16(1.0f) + 1));
  const std::vector<float> x(20000, low + 0.3f * (high - low));
  std::vector<uint16_t> out(x.size()), again(x.size());
  round_stochastically(x.data(), static_cast<int64_t>(x.size()), 7, 0, out.data());
  int64_t up = 0;
  for (const uint16_t bits : out) {
    ASSERT_TRUE(bf16_to_f32(bits) == low || bf16_to_f32(bits) == high);
    up += bf16_to_f32(bits) == high;
  }
  EXPECT_NEAR(static_cast<double>(up) / static_cast<double>(x.size()), 0.3, 0.02);
  round_stochastically(x.data() + 500, 1000, 7, 500, again.data());
  EXPECT_TRUE(std::equal(again.begin(), again.begin() + 1000, out.begin() + 500));
  const std::vector<float> exact = {0.0f, -0.0f, 1.5f, -3.0f, 65536.0f};
  round_stochastically(exact.data(), 5, 1, 0, out.data());
  for (size_t i = 0; i < exact.size(); ++i) EXPECT_EQ(bf16_to_f32(out[i]), exact[i]);
}

}  // namespace
}  // namespace thimble
