#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/cpu.h"
#include "core/random.h"
#include "kernels/packed_layout.h"

namespace thimble::packed {
namespace {

struct Results {
  std::vector<int8_t> high, low;
  std::vector<float> scale, sum;
  std::vector<int32_t> correction, halves;
  std::vector<uint8_t> fine;

  Results(int rows, int64_t groups) {
    const auto cells = static_cast<size_t>(rows * groups);
    high.assign(cells * kGroup, 99);
    low.assign(cells * kGroup, 99);
    scale.assign(cells, 99);
    sum.assign(cells, 99);
    correction.assign(cells, 99);
    halves.assign(2 * cells, 99);
    fine.assign(static_cast<size_t>(groups), 99);
  }
  QuantizedTile tile(int rows, int valid, bool with_halves) {
    return {rows,       valid,      high.data(),       low.data(), scale.data(),
            sum.data(), correction.data(), with_halves ? halves.data() : nullptr, fine.data()};
  }
};

TEST(PackedQuantize, GivesTheReferencesBits) {
  if (cpu_level() < CpuLevel::kAvx512) GTEST_SKIP() << "needs AVX-512";
  Random random(3);
  int outliers = 0;
  for (const int rows : kRowClasses) {
    for (const int valid : {rows, std::max(1, rows - 1)}) {
      for (const int64_t in : {32, 70, 96, 576, 1000}) {
        std::vector<float> x(static_cast<size_t>(valid * in));
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = random.normal();
          if (random.uniform() < 0.002) x[i] *= 40;
          if (i / 32 % 5 == 3) x[i] = i / 32 % 2 == 0 ? 0.0f : 1e-33f;
          if (i % 17 == 0) x[i] = 0.5f * static_cast<float>(static_cast<int>(2 * x[i]));  // ties
        }
        for (const bool all_fine : {false, true}) {
          const int64_t groups = group_count(in);
          Results expected(rows, groups), got(rows, groups);
          quantize_rows(x.data(), in, all_fine, expected.tile(rows, valid, true));
          quantize_rows_avx512(x.data(), in, all_fine, got.tile(rows, valid, true));
          SCOPED_TRACE(testing::Message() << valid << " of " << rows << " rows of " << in << ", fine " << all_fine);
          EXPECT_EQ(got.high, expected.high);
          EXPECT_EQ(got.scale, expected.scale);
          EXPECT_EQ(got.sum, expected.sum);
          EXPECT_EQ(got.correction, expected.correction);
          EXPECT_EQ(got.halves, expected.halves);
          ASSERT_EQ(got.fine, expected.fine);
          for (int64_t g = 0; g < groups; ++g)
            for (int row = 0; row < rows; ++row)
              if ((got.fine[static_cast<size_t>(g)] >> (row / kSubset)) & 1)
                for (int64_t k = 0; k < kGroup; ++k, ++outliers) {
                  const auto at = static_cast<size_t>((g * rows + row) * kGroup + k);
                  ASSERT_EQ(got.low[at], expected.low[at]);
                }
        }
      }
    }
  }
  EXPECT_GT(outliers, 0);
}

TEST(PackedFloats, GiveTheReferencesBits) {
  if (cpu_level() < CpuLevel::kAvx512) GTEST_SKIP() << "needs AVX-512";
  Random random(4);
  for (const int rows : kRowClasses) {
    for (const int valid : {rows, std::max(1, rows - 1)}) {
      for (const int64_t in : {1, 31, 32, 33, 100, 576}) {
        std::vector<float> x(static_cast<size_t>(valid * in));
        for (float& v : x) v = random.normal() * std::exp(10 * random.normal());
        x[x.size() / 2] = std::nanf("");
        x[0] = std::numeric_limits<float>::infinity();
        const auto count = static_cast<size_t>((in + 1) / 2 * rows);
        std::vector<float> values[2] = {std::vector<float>(2 * count, 9), std::vector<float>(2 * count, 9)};
        std::vector<uint32_t> pairs[2] = {std::vector<uint32_t>(count, 9), std::vector<uint32_t>(count, 9)};
        lay_out_floats(x.data(), in, {rows, valid, values[0].data(), pairs[0].data()});
        lay_out_floats_avx512(x.data(), in, {rows, valid, values[1].data(), pairs[1].data()});
        SCOPED_TRACE(testing::Message() << valid << " of " << rows << " rows of " << in);
        EXPECT_EQ(std::memcmp(values[0].data(), values[1].data(), 8 * count), 0);
        EXPECT_EQ(pairs[0], pairs[1]);
      }
    }
  }
}

}  // namespace
}  // namespace thimble::packed
