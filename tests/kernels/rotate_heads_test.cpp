#include "kernels/rotate_heads.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "core/cpu.h"
#include "core/random.h"

namespace thimble {
namespace {

TEST(RotateHeads, MultipliesByWalshHadamardMatrices) {
  Random random(3);
  for (const int head_dim : {64, 128, 16, 80, 40, 6, 112}) {
    std::vector<float> x(static_cast<size_t>(3 * head_dim));
    for (float& v : x) v = random.normal();
    std::vector<double> expected(x.begin(), x.end());
    for (int h = 0; h < 3; ++h)
      for (int first = 0, left = head_dim / 16; left > 0;) {
        const auto size = 16 * std::bit_floor(static_cast<unsigned>(left));
        for (unsigned i = 0; i < size; ++i) {
          double sum = 0;
          for (unsigned j = 0; j < size; ++j)
            sum += (std::popcount(i & j) % 2 == 0 ? 1 : -1) * static_cast<double>(x[h * head_dim + first + j]);
          expected[h * head_dim + first + i] = sum / std::sqrt(size);
        }
        first += static_cast<int>(size);
        left -= static_cast<int>(size / 16);
      }
    for (const CpuLevel level : cpu_levels()) {
      force_cpu(level);
      std::vector<float> turned = x;
      rotate_heads(turned.data(), 3, head_dim);
      for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(turned[i], expected[i], 2e-6) << head_dim << " " << i;
      rotate_heads(turned.data(), 3, head_dim);
      for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(turned[i], x[i], 2e-6) << head_dim << " back " << i;
    }
    force_cpu(cpu_detected());
  }
}

}  // namespace
}  // namespace thimble
