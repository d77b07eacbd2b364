#include "tensor/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "core/atomic_file.h"
#include "core/random.h"
#include "tensor/half.h"
#include "test_data.h"

namespace thimble {
namespace {

struct Golden {
  std::vector<std::byte> stored;
  std::vector<float> values;
};

// Made by tests/oracle/make_block_goldens.py, which describes the layout, and make_k_goldens.py.
std::map<std::string, Golden> goldens(const char* name_of_file = "tensor/blocks.bin") {
  const std::string file = read_file(test::golden(name_of_file));
  std::map<std::string, Golden> out;
  for (size_t at = 0; at < file.size();) {
    const size_t name_length = static_cast<uint8_t>(file[at]);
    const std::string name = file.substr(at + 1, name_length);
    at += 1 + name_length;
    uint32_t counts[2];
    std::memcpy(counts, file.data() + at, sizeof counts);
    at += sizeof counts;
    Golden golden{std::vector<std::byte>(counts[1]), std::vector<float>(counts[0])};
    std::memcpy(golden.stored.data(), file.data() + at, counts[1]);
    at += counts[1];
    std::memcpy(golden.values.data(), file.data() + at, counts[0] * sizeof(float));
    at += counts[0] * sizeof(float);
    out[name] = std::move(golden);
  }
  return out;
}

TEST(DequantizeRow, GivesTheGgufPackagesValuesForEveryType) {
  int types = 0;
  for (const auto& [name, golden] : goldens()) {
    if (!name.starts_with("d:")) continue;
    ++types;
    const auto type = dtype_from_name(name.substr(2));
    ASSERT_TRUE(type.has_value()) << name;
    ASSERT_EQ(golden.stored.size(), dtype_bytes(*type, static_cast<int64_t>(golden.values.size())));
    std::vector<float> out(golden.values.size(), -1.0f);
    dequantize_row(*type, golden.stored.data(), static_cast<int64_t>(out.size()), out.data());
    for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], golden.values[i]) << name << " element " << i;
  }
  EXPECT_EQ(types, kDTypeCount - 1);  // all but F32
}

TEST(QuantizeRow, GivesTheGgufPackagesBytesForEveryType) {
  int types = 0;
  for (const auto& [name, golden] : goldens()) {
    if (!name.starts_with("q:")) continue;
    ++types;
    const auto type = dtype_from_name(name.substr(2));
    ASSERT_TRUE(type.has_value()) << name;
    std::vector<std::byte> out(golden.stored.size());
    quantize_row(*type, golden.values.data(), static_cast<int64_t>(golden.values.size()), out.data());
    for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], golden.stored[i]) << name << " byte " << i;
  }
  EXPECT_EQ(types, 7);
}

TEST(QuantizeRow, GivesGgmlsBytesForTheKTypes) {
  int types = 0;
  for (const auto& [name, golden] : goldens("tensor/k_blocks.bin")) {
    ++types;
    const auto type = dtype_from_name(name.substr(2));
    ASSERT_TRUE(type.has_value() && dtype_info(*type).block == 256) << name;
    const auto count = static_cast<int64_t>(golden.values.size());
    ASSERT_EQ(golden.stored.size(), dtype_bytes(*type, count));
    std::vector<std::byte> out(golden.stored.size());
    quantize_row(*type, golden.values.data(), count, out.data());
    const auto block = static_cast<size_t>(dtype_info(*type).block_bytes);
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_EQ(out[i], golden.stored[i]) << name << " block " << i / block << " byte " << i % block;
  }
  EXPECT_EQ(types, 3);
}

TEST(DequantizeRow, AgreesWithF16ToF32ForEveryBitPattern) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> out(all.size());
  dequantize_row(DType::kF16, reinterpret_cast<const std::byte*>(all.data()), 65536, out.data());
  for (size_t i = 0; i < all.size(); ++i) {
    const float expected = f16_to_f32(all[i]);
    ASSERT_EQ(std::memcmp(&out[i], &expected, sizeof expected), 0) << "pattern " << i;
  }
}

TEST(Half, RoundTripsEveryFinitePattern) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = f16_to_f32(bits);
    if (!std::isnan(value)) {
      ASSERT_EQ(f32_to_f16(value), bits);
    }
    const float wide = bf16_to_f32(bits);
    if (!std::isnan(wide)) {
      ASSERT_EQ(f32_to_bf16(wide), bits);
    }
  }
}

TEST(QuantizeRow, OfDequantizedBlocksKeepsTheirValuesForTypesWithAScale) {
  Random random(3);
  std::vector<float> values(512), back(512);
  for (float& v : values) v = random.normal();
  const std::pair<DType, float> types[] = {{DType::kQ8_0, 0.05f}, {DType::kQ4_0, 0.5f}, {DType::kQ4_1, 0.5f},
                                           {DType::kQ5_0, 0.3f},  {DType::kQ5_1, 0.3f}, {DType::kQ4_K, 0.4f},
                                           {DType::kQ5_K, 0.2f},  {DType::kQ6_K, 0.15f}};
  for (const auto& [type, step] : types) {
    std::vector<std::byte> stored(dtype_bytes(type, 512));
    quantize_row(type, values.data(), 512, stored.data());
    dequantize_row(type, stored.data(), 512, back.data());
    for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], back[i], step) << dtype_info(type).name;
  }
}

TEST(QuantizeRow, SurvivesValuesThatAreNotFinite) {
  std::vector<float> values(256, 1.0f);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  values[4] = std::numeric_limits<float>::infinity();
  values[40] = std::numeric_limits<float>::max();
  values[70] = std::numeric_limits<float>::denorm_min();
  for (int t = 0; t < kDTypeCount; ++t) {
    const auto type = static_cast<DType>(t);
    std::vector<std::byte> stored(dtype_bytes(type, 256));
    quantize_row(type, values.data(), 256, stored.data());  // the sanitizers watch
  }
}

TEST(Dequantize, ReadsAWholeTensorRowByRow) {
  std::vector<uint16_t> bits = {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0};  // 1 .. 6 as bf16
  const Tensor tensor{DType::kBF16, {3, 2}, reinterpret_cast<const std::byte*>(bits.data()), nullptr};
  const Buffer<float> out = dequantize(tensor);
  ASSERT_EQ(out.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(out[i], static_cast<float>(i + 1));
}

}  // namespace
}  // namespace thimble
