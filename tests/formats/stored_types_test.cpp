#include "formats/stored_types.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tensor/half.h"

namespace thimble {
namespace {

TEST(StoredTypes, FallBackAsLlamaCppDoes) {
  for (int t = 0; t < kDTypeCount; ++t) {
    const auto type = static_cast<DType>(t);
    EXPECT_EQ(fitting_type(type, 512), type);
    EXPECT_EQ(0, 33 % dtype_info(fitting_type(type, 33)).block);
  }
  EXPECT_EQ(fitting_type(DType::kQ4_K, 576), DType::kQ5_0);
  EXPECT_EQ(fitting_type(DType::kQ5_K, 576), DType::kQ5_1);
  EXPECT_EQ(fitting_type(DType::kQ6_K, 576), DType::kQ8_0);
  EXPECT_EQ(fitting_type(DType::kQ6_K, 172), DType::kF16);
  EXPECT_EQ(fitting_type(DType::kQ4_0, 172), DType::kF16);
  EXPECT_EQ(fitting_type(DType::kBF16, 172), DType::kBF16);
}

TEST(StoredTypes, TheHeadIsTheEmbeddingOnlyWhereTheyAreTied) {
  const std::byte byte{};
  const Tensor table{DType::kF16, {40, 512}, &byte, nullptr}, norm{DType::kF16, {512}, &byte, nullptr};
  const StoredTypes q4{DType::kQ4_K, DType::kF32, std::nullopt};
  EXPECT_EQ(stored_type("model.embed_tokens.weight", table, true, q4).type, DType::kQ6_K);
  EXPECT_EQ(stored_type("model.embed_tokens.weight", table, false, q4).type, DType::kQ4_K);
  EXPECT_EQ(stored_type("lm_head.weight", table, false, q4).type, DType::kQ6_K);
  EXPECT_EQ(stored_type("model.layers.0.mlp.up_proj.weight", table, true, q4).type, DType::kQ4_K);
  EXPECT_EQ(stored_type("model.norm.weight", norm, true, q4).type, DType::kF32);
  const StoredTypes with_head{DType::kQ4_K, DType::kF32, DType::kQ4_0};
  EXPECT_EQ(stored_type("lm_head.weight", table, false, with_head).type, DType::kQ4_0);
  EXPECT_EQ(head_type(DType::kQ8_0), DType::kQ8_0);
  EXPECT_EQ(head_type(DType::kF32), DType::kF32);
}

TEST(StoredTypes, TheLargestValueOfATypeIsFiniteInIt) {
  EXPECT_TRUE(std::isfinite(bf16_to_f32(f32_to_bf16(largest_value(DType::kBF16)))));
  EXPECT_TRUE(std::isinf(bf16_to_f32(f32_to_bf16(std::nextafter(
      largest_value(DType::kBF16), std::numeric_limits<float>::infinity())))));
  EXPECT_EQ(f16_to_f32(f32_to_f16(largest_value(DType::kF16))), 65504.0f);
}

}  // namespace
}  // namespace thimble
