#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include "core/thread_pool.h"
#include "gemm_reference.h"
#include "kernel_test_tools.h"
#include "kernels/lora.h"
#include "kernels/unpack_bf16.h"
#include "tensor/half.h"

namespace thimble {
namespace {

using test::EachCpu;
using test::random_floats;
using test::relative_difference;
using test::stored_matrix;

struct Shape {
  int64_t rows, in, out;
};
// one row, odd sizes, sizes around a tile, more rows than the few that are packed per thread, a cut depth
const Shape kShapes[] = {{1, 32, 17},  {1, 64, 96},   {3, 96, 33},    {14, 32, 48},   {29, 160, 47},
                         {65, 64, 50}, {130, 96, 77}, {67, 4096, 40}, {16, 512, 300}, {200, 1536, 576}};

double limit(GemmPrecision precision) { return precision == GemmPrecision::kF32 ? 1e-5 : 6e-3; }

class EveryType : public testing::TestWithParam<DType> {};

TEST_P(EveryType, ForwardAndGradientOfTheInputMatchThePlainReference) {
  Random random(7);
  const DType type = GetParam();
  for (Shape s : kShapes) {
    const int64_t block = dtype_info(type).block;
    s.in = (s.in + block - 1) / block * block;
    const auto w = stored_matrix(type, s.out, s.in, random);
    const auto x = random_floats(s.rows * s.in, random), dy = random_floats(s.rows * s.out, random);
    std::vector<float> y(dy.size()), y_expected(dy.size()), dx(x.size()), dx_expected(x.size());
    plain::linear_forward({x.data(), s.rows, s.in}, w.tensor, y_expected.data(), false);
    plain::linear_backward_input({dy.data(), s.rows, s.out}, w.tensor, dx_expected.data(), false);
    EachCpu().run([&](CpuLevel level) {
      for (const auto precision : {GemmPrecision::kF32, GemmPrecision::kBF16}) {
        SCOPED_TRACE(std::string(cpu_level_name(level)) + " " + std::to_string(s.rows) + " " + std::to_string(s.in) +
                     " " + std::to_string(s.out));
        linear_forward(precision, x.data(), s.rows, w.tensor, y.data(), false);
        EXPECT_LT(relative_difference(y.data(), y_expected.data(), s.rows * s.out), limit(precision));
        linear_backward_input(precision, dy.data(), s.rows, w.tensor, dx.data(), false);
        EXPECT_LT(relative_difference(dx.data(), dx_expected.data(), s.rows * s.in), limit(precision));
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Gemm, EveryType,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K,
                                         DType::kQ6_K),
                         [](const auto& info) { return std::string(dtype_info(info.param).name); });

TEST_P(EveryType, UnpacksToTheRoundedValues) {
  Random random(3);
  const auto w = stored_matrix(GetParam(), 1, 512, random);
  std::vector<float> expected(512);
  dequantize_row(GetParam(), w.bytes.data(), 512, expected.data());
  EachCpu().run([&](CpuLevel) {
    std::vector<uint16_t> values(512);
    unpack_bf16(GetParam(), w.bytes.data(), 512, values.data());
    // a fused multiply-add may round the f32 value the other way, and with it a tie
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(bf16_to_f32(values[i]), expected[i], 1e-6 + std::abs(expected[i]) / 256) << i;
  });
}

TEST(Gemm, GradientOfTheWeightMatchesThePlainReference) {
  Random random(8);
  for (Shape s : kShapes) {
    for (const int64_t in : {s.in, s.in + 3}) {
      const auto x = random_floats(s.rows * in, random), dy = random_floats(s.rows * s.out, random);
      std::vector<float> dw(static_cast<size_t>(in * s.out)), expected(dw.size());
      plain::linear_backward_weight({dy.data(), s.rows, s.out}, {x.data(), s.rows, in}, expected.data(), false, 0.5f);
      EachCpu().run([&](CpuLevel) {
        for (const auto precision : {GemmPrecision::kF32, GemmPrecision::kBF16}) {
          linear_backward_weight(precision, {dy.data(), s.rows, s.out}, {x.data(), s.rows, in}, dw.data(), false, 0.5f);
          EXPECT_LT(relative_difference(dw.data(), expected.data(), in * s.out), limit(precision))
              << s.rows << " " << in << " " << s.out;
        }
      });
    }
  }
}

TEST(Gemm, AddsToWhatTheResultHolds) {
  Random random(9);
  const auto w = stored_matrix(DType::kQ8_0, 50, 96, random);
  const auto x = random_floats(70 * 96, random), start = random_floats(70 * 96, random);
  for (const auto precision : {GemmPrecision::kF32, GemmPrecision::kBF16})
    EachCpu().run([&](CpuLevel) {
      std::vector<float> once(70 * 50), sum(start.begin(), start.begin() + 70 * 50);
      linear_forward(precision, x.data(), 70, w.tensor, once.data(), false);
      linear_forward(precision, x.data(), 70, w.tensor, sum.data(), true);
      for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(sum[i], start[i] + once[i], 2e-4);
    });
}

TEST(Gemm, TakesAnInputThatWasKeptInBf16Only) {
  Random random(10);
  const auto w = stored_matrix(DType::kQ4_1, 50, 96, random);
  const auto x = random_floats(70 * 96, random);
  std::vector<uint16_t> x16(x.size());
  std::vector<float> expected(70 * 50), y(expected.size());
  EachCpu().run([&](CpuLevel) {
    convert_to_bf16(x.data(), 70 * 96, x16.data());
    linear_forward(GemmPrecision::kBF16, x.data(), 70, w.tensor, expected.data(), false);
    linear_forward(GemmPrecision::kBF16, {nullptr, 70, 96, x16.data()}, w.tensor, y.data());
    EXPECT_LT(relative_difference(y.data(), expected.data(), 70 * 50), 5e-3);
  });
}

TEST(Gemm, ARowDependsNeitherOnTheOthersNorOnTheThreads) {
  Random random(11);
  const int64_t rows = 150;
  const auto w = stored_matrix(DType::kQ4_0, 90, 4096, random);
  const auto x = random_floats(rows * 4096, random);
  EachCpu().run([&](CpuLevel) {
    for (const auto precision : {GemmPrecision::kF32, GemmPrecision::kBF16}) {
      std::vector<float> all(rows * 90), one(90);
      linear_forward(precision, x.data(), rows, w.tensor, all.data(), false);
      for (const int64_t r : {int64_t{0}, int64_t{77}, rows - 1}) {
        linear_forward(precision, x.data() + r * 4096, 1, w.tensor, one.data(), false);
        EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + r * 90)) << r;
      }
      const int before = threads().size();
      set_threads(1);
      std::vector<float> alone(all.size());
      linear_forward(precision, x.data(), rows, w.tensor, alone.data(), false);
      set_threads(before);
      EXPECT_EQ(alone, all);
    }
  });
}

TEST(Lora, MatchesTheProductsDoneOneByOne) {
  Random random(12);
  for (const auto& [rows, in, out] : {Shape{5, 64, 96}, Shape{100, 96, 33}, Shape{70, 576, 64}})
    for (const int64_t rank : {1, 4, 7, 16, 40}) {
      const auto w = stored_matrix(DType::kBF16, out, in, random);
      const auto a = random_floats(rank * in, random), b = random_floats(out * rank, random);
      const auto x = random_floats(rows * in, random), dy = random_floats(rows * out, random);
      const LowRank adapter{a.data(), b.data(), rank, 0.7f};
      const Tensor a_tensor{DType::kF32, {rank, in}, reinterpret_cast<const std::byte*>(a.data()), nullptr};
      const Tensor b_tensor{DType::kF32, {out, rank}, reinterpret_cast<const std::byte*>(b.data()), nullptr};
      const GemmInput x_rows{x.data(), rows, in}, dy_rows{dy.data(), rows, out};

      std::vector<float> t(static_cast<size_t>(rows * rank)), y(dy.size());
      plain::linear_forward(x_rows, a_tensor, t.data(), false);
      std::vector<float> scaled = t, u(t.size()), dx(x.size()), da(a.size(), 1.0f), db(b.size(), 1.0f);
      for (float& v : scaled) v *= 0.7f;
      plain::linear_forward(x_rows, w.tensor, y.data(), false);
      plain::linear_forward({scaled.data(), rows, rank}, b_tensor, y.data(), true);
      plain::linear_backward_input(dy_rows, b_tensor, u.data(), false);
      for (float& v : u) v *= 0.7f;
      plain::linear_backward_input(dy_rows, w.tensor, dx.data(), false);
      plain::linear_backward_input({u.data(), rows, rank}, a_tensor, dx.data(), true);
      plain::linear_backward_weight({u.data(), rows, rank}, x_rows, da.data(), true, 1);
      plain::linear_backward_weight(dy_rows, {t.data(), rows, rank}, db.data(), true, 0.7f);

      EachCpu().run([&](CpuLevel) {
        for (const auto precision : {GemmPrecision::kF32, GemmPrecision::kBF16}) {
          std::vector<float> t2(t.size()), y2(y.size()), dx2(dx.size()), da2(a.size(), 1.0f), db2(b.size(), 1.0f);
          lora_forward(precision, x_rows, w.tensor, adapter, y2.data(), t2.data());
          lora_backward(precision, dy_rows, x_rows, w.tensor, adapter, t2.data(), dx2.data(), false, da2.data(),
                        db2.data());
          const auto same = [&](const std::vector<float>& got, const std::vector<float>& expected, const char* what) {
            EXPECT_LT(relative_difference(got.data(), expected.data(), static_cast<int64_t>(got.size())),
                      limit(precision))
                << what << " rank " << rank;
          };
          same(t2, t, "t");
          same(y2, y, "y");
          same(dx2, dx, "dx");
          same(da2, da, "da");
          same(db2, db, "db");
        }
      });
    }
}

}  // namespace
}  // namespace thimble
