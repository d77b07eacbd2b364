#include "kernels/packed_matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/cpu.h"
#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

namespace thimble {
namespace {

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                            DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// Random weights of any type; the K types as random blocks with sane scales, so that every code comes up.
Tensor random_weight(DType type, int64_t out, int64_t in, uint64_t seed) {
  Random random(seed);
  auto bytes = std::make_shared<std::vector<std::byte>>(dtype_bytes(type, in) * static_cast<size_t>(out));
  if (type < DType::kQ4_K) {
    std::vector<float> row(static_cast<size_t>(in));
    for (int64_t r = 0; r < out; ++r) {
      for (float& v : row) v = 0.05f * random.normal();
      quantize_row(type, row.data(), in, bytes->data() + static_cast<size_t>(r) * dtype_bytes(type, in));
    }
  } else {
    for (auto& b : *bytes) b = static_cast<std::byte>(random.next() & 255);
    const auto block_bytes = static_cast<size_t>(dtype_info(type).block_bytes);
    for (size_t at = 0; at < bytes->size(); at += block_bytes) {
      const uint16_t scale = f32_to_f16(static_cast<float>(0.001 + 0.001 * random.uniform()));
      const size_t offset = type == DType::kQ6_K ? offsetof(BlockQ6_K, scale) : offsetof(BlockQ4_K, scale);
      std::memcpy(bytes->data() + at + offset, &scale, 2);
      if (type != DType::kQ6_K) std::memcpy(bytes->data() + at + offsetof(BlockQ4_K, min), &scale, 2);
    }
  }
  return {type, {out, in}, bytes->data(), bytes};
}

// Activations as models have them: mostly small, some channels far out, a row of zeros.
std::vector<float> random_activations(int64_t rows, int64_t in, uint64_t seed) {
  Random random(seed);
  std::vector<float> x(static_cast<size_t>(rows * in));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < in; ++k) {
      float& v = x[static_cast<size_t>(r * in + k)];
      v = random.normal();
      if (random.below(200) == 0) v *= 40;
      if (k == 7 && r % 3 == 0) v *= 300;
      if (r == 5) v = 0;
    }
  return x;
}

struct Products {
  std::vector<double> y;      // exact
  std::vector<double> scale;  // norm of w * (largest |x| of its group of 32): what rounding errors are measured against
};
Products reference(const Tensor& weight, const std::vector<float>& x, int64_t rows) {
  const int64_t out = weight.rows(), in = weight.cols();
  const Buffer<float> w = dequantize(weight);
  Products result{std::vector<double>(static_cast<size_t>(rows * out)),
                  std::vector<double>(static_cast<size_t>(rows * out))};
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < out; ++o) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < in; ++k) {
        const double weight_value = w[static_cast<size_t>(o * in + k)];
        sum += weight_value * x[static_cast<size_t>(r * in + k)];
        float largest = 0;
        for (int64_t j = k / 32 * 32; j < std::min(in, k / 32 * 32 + 32); ++j)
          largest = std::max(largest, std::fabs(x[static_cast<size_t>(r * in + j)]));
        size += weight_value * weight_value * largest * largest;
      }
      result.y[static_cast<size_t>(r * out + o)] = sum;
      result.scale[static_cast<size_t>(r * out + o)] = std::sqrt(size);
    }
  return result;
}

// Norm of the difference over norm, worst row.
double relative_error(const std::vector<float>& y, const Products& expected, int64_t rows) {
  const size_t out = y.size() / static_cast<size_t>(rows);
  double worst = 0;
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    double error = 0, size = 0;
    for (size_t o = r * out; o < (r + 1) * out; ++o) {
      error += (y[o] - expected.y[o]) * (y[o] - expected.y[o]);
      size += expected.scale[o] * expected.scale[o];
    }
    worst = std::max(worst, size > 0 ? std::sqrt(error / size) : std::sqrt(error));
  }
  return worst;
}

class PackedMatmulTest : public ::testing::Test {
 protected:
  void TearDown() override { force_cpu(cpu_detected()); }
};

TEST_F(PackedMatmulTest, GivesRowsBackAsTheyWerePacked) {
  for (const DType type : kTypes)
    for (const MatmulPrecision precision : {MatmulPrecision::kFast, MatmulPrecision::kFine, MatmulPrecision::kF32}) {
      const Tensor weight = random_weight(type, 37, 768, 5);
      const PackedWeight packed = PackedWeight::pack(weight, precision);
      std::vector<float> expected(768), row(768);
      for (int64_t r = 0; r < weight.rows(); ++r) {
        dequantize_row(type, weight.row(r), weight.cols(), expected.data());
        unpack_row(packed, r, row.data());
        ASSERT_EQ(row, expected) << dtype_info(type).name << ", row " << r;
      }
    }
}

double tolerance(DType type, MatmulPrecision precision) {
  if (precision == MatmulPrecision::kF32 || type == DType::kF32 || type == DType::kF16) return 1e-5;
  if (type == DType::kBF16) return 4e-3;
  return precision == MatmulPrecision::kFine ? 1e-4 : 8e-3;
}

TEST_F(PackedMatmulTest, MatchesReferenceForEveryTypeAndOddSizes) {
  struct Size {
    int64_t rows, out, in;
  };
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const DType type : kTypes) {
      const int64_t block = dtype_info(type).block;
      for (const Size& size : {Size{1, 1, 1}, Size{1, 16, 3}, Size{2, 17, 2}, Size{3, 33, 4}, Size{5, 5, 5},
                               Size{7, 48, 1}, Size{8, 31, 6}, Size{10, 16, 7}, Size{13, 64, 9}, Size{33, 19, 8}}) {
        const int64_t in = size.in * (block == 1 ? 7 : block);
        const Tensor weight = random_weight(type, size.out, in, 11);
        const std::vector<float> x = random_activations(size.rows, in, 12);
        const Products expected = reference(weight, x, size.rows);
        for (const auto precision : {MatmulPrecision::kFast, MatmulPrecision::kFine, MatmulPrecision::kF32}) {
          const PackedWeight packed = PackedWeight::pack(weight, precision);
          EXPECT_EQ(packed.bytes(), packed_bytes(type, size.out, in, precision));
          std::vector<float> y(static_cast<size_t>(size.rows * size.out), NAN);
          packed_matmul(x.data(), size.rows, packed, y.data());
          EXPECT_LT(relative_error(y, expected, size.rows), tolerance(type, precision))
              << cpu_level_name(level) << " " << dtype_info(type).name << " rows " << size.rows << " out " << size.out
              << " in " << in << " precision " << static_cast<int>(precision);
        }
      }
    }
  }
}

// What a row gives must not depend on who stands beside it: greedy answers would change with the batch.
TEST_F(PackedMatmulTest, RowsAreBitIdenticalWhateverTheBatchAndThreads) {
  const int pool = threads().size();
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const DType type : kTypes) {
      const int64_t in = 512, out = 40, rows = 39;
      const PackedWeight packed = PackedWeight::pack(random_weight(type, out, in, 21));
      const std::vector<float> x = random_activations(rows, in, 22);
      std::vector<float> together(static_cast<size_t>(rows * out));
      packed_matmul(x.data(), rows, packed, together.data());
      for (const int count : {1, 3}) {
        set_threads(count);
        for (const int64_t batch : {1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 16, 18}) {
          std::vector<float> apart(static_cast<size_t>(rows * out));
          for (int64_t first = 0; first < rows; first += batch)
            packed_matmul(x.data() + first * in, std::min(batch, rows - first), packed, apart.data() + first * out);
          EXPECT_EQ(std::memcmp(apart.data(), together.data(), together.size() * sizeof(float)), 0)
              << cpu_level_name(level) << " " << dtype_info(type).name << " batches of " << batch;
        }
      }
      set_threads(pool);
    }
  }
}

TEST_F(PackedMatmulTest, SeveralWeightsOfDifferentTypesShareOneCall) {
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    const int64_t in = 256, rows = 21;
    const std::vector<float> x = random_activations(rows, in, 32);
    std::vector<PackedWeight> weights;
    std::vector<std::vector<float>> apart, together;
    std::vector<float> bias(100);
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
    int64_t out = 10;
    for (const DType type : kTypes) {
      out += 7;
      const auto precision = out % 2 == 0 ? MatmulPrecision::kFast : MatmulPrecision::kFine;
      weights.push_back(PackedWeight::pack(random_weight(type, out, in, 31), precision));
    }
    std::vector<PackedMatmul> products;
    for (const PackedWeight& weight : weights) {
      apart.emplace_back(static_cast<size_t>(rows * weight.out()));
      packed_matmul(x.data(), rows, weight, apart.back().data());
      together.emplace_back(static_cast<size_t>(rows * weight.out()), 0.5f);
    }
    for (size_t i = 0; i < weights.size(); ++i)
      products.push_back({&weights[i], together[i].data(), bias.data(), true});
    packed_matmul(x.data(), rows, products);
    for (size_t i = 0; i < weights.size(); ++i)
      for (size_t j = 0; j < apart[i].size(); ++j) {
        const float b = bias[j % static_cast<size_t>(weights[i].out())];
        ASSERT_EQ(together[i][j], 0.5f + (apart[i][j] + b)) << cpu_level_name(level) << " weight " << i << " at " << j;
      }
  }
}

TEST_F(PackedMatmulTest, OutliersDoNotCoarsenTheirRow) {
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    const int64_t in = 1536, out = 64, rows = 16;
    const Tensor weight = random_weight(DType::kQ8_0, out, in, 41);
    const PackedWeight packed = PackedWeight::pack(weight);
    std::vector<float> x(static_cast<size_t>(rows * in));
    Random random(42);
    for (float& v : x) v = random.normal();
    for (int64_t r = 0; r < rows; ++r) x[static_cast<size_t>(r * in + 100)] = 200;  // as much as all others together
    std::vector<float> y(static_cast<size_t>(rows * out));
    packed_matmul(x.data(), rows, packed, y.data());
    EXPECT_LT(relative_error(y, reference(weight, x, rows), rows), 5e-4) << cpu_level_name(level);
  }
}

// The largest codes, and activations whose bytes are the largest too: sums of products that are kept in 16 bits where
// they don't fit would show.
TEST_F(PackedMatmulTest, SumsOfBytesAreExactAtTheirExtremes) {
  const int64_t in = 512, out = 20, rows = 11;
  std::vector<float> coarse(static_cast<size_t>(rows * in), 1.0f), fine(coarse.size(), 128.0f / (127 * 256));
  for (size_t i = 0; i < fine.size(); i += 32) fine[i] = 1;  // the others' second bytes are -128
  for (const DType type : kTypes) {
    if (dtype_info(type).block == 1) continue;
    std::vector<std::byte> bytes(dtype_bytes(type, in) * static_cast<size_t>(out),
                                 type == DType::kQ8_0 ? std::byte{0x80} : std::byte{0xff});
    const auto block_bytes = static_cast<size_t>(dtype_info(type).block_bytes);
    const uint16_t scale = f32_to_f16(0.01f);
    const bool has_min = type == DType::kQ4_1 || type == DType::kQ5_1 || type == DType::kQ4_K || type == DType::kQ5_K;
    for (size_t at = 0; at < bytes.size(); at += block_bytes) {
      std::memcpy(bytes.data() + at + (type == DType::kQ6_K ? offsetof(BlockQ6_K, scale) : 0), &scale, 2);
      if (has_min) std::memcpy(bytes.data() + at + 2, &scale, 2);
    }
    const Tensor weight{type, {out, in}, bytes.data(), nullptr};
    const PackedWeight in_one_byte = PackedWeight::pack(weight);
    const PackedWeight in_two = PackedWeight::pack(weight, MatmulPrecision::kFine);
    for (const CpuLevel level : cpu_levels()) {
      force_cpu(level);
      std::vector<float> y(static_cast<size_t>(rows * out));
      packed_matmul(coarse.data(), rows, in_one_byte, y.data());
      EXPECT_LT(relative_error(y, reference(weight, coarse, rows), rows), 1e-4)
          << cpu_level_name(level) << " " << dtype_info(type).name;
      packed_matmul(fine.data(), rows, in_two, y.data());
      EXPECT_LT(relative_error(y, reference(weight, fine, rows), rows), 1e-4)
          << cpu_level_name(level) << " " << dtype_info(type).name << " in two bytes";
    }
  }
}

TEST_F(PackedMatmulTest, RefusesAWeightThatIsNotAMatrix) {
  Tensor weight = random_weight(DType::kF32, 4, 4, 1);
  weight.shape = {16};
  EXPECT_THROW(PackedWeight::pack(weight), Error);
}

}  // namespace
}  // namespace thimble
