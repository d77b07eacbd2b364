#include "kernels/kv_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "core/cpu.h"
#include "core/random.h"
#include "kernels/rotate_heads.h"
#include "tensor/half.h"

namespace thimble {
namespace {

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8};

struct Storage {
  KvLayout layout;
  std::vector<std::byte> keys, values;

  Storage(const KvLayout& layout, int64_t slots)
      : layout(layout), keys(layout.bytes(slots), std::byte{0x55}), values(keys) {}

  float read(const std::vector<std::byte>& storage, int64_t at, int32_t slot, int head) const {
    const std::byte* p = storage.data() + at;
    if (layout.type == KvType::kQ8) {
      float scale;
      std::memcpy(&scale, storage.data() + layout.scale_at(slot, head), sizeof scale);
      return scale * static_cast<float>(static_cast<int8_t>(*p));
    }
    if (layout.type == KvType::kF32) {
      float x;
      std::memcpy(&x, p, sizeof x);
      return x;
    }
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return layout.type == KvType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
  }
  float key(int32_t slot, int head, int d) const {
    return read(keys, layout.key_at(slot, head) + int64_t{d} * kKvSlots * layout.element_bytes(), slot, head);
  }
  float value(int32_t slot, int head, int d) const {
    return read(values, layout.value_at(slot, head) + d * layout.element_bytes(), slot, head);
  }
};

class KvStoreTest : public ::testing::Test {
 protected:
  void TearDown() override { force_cpu(cpu_detected()); }
};

TEST_F(KvStoreTest, RoundsToNearestEven) {
  const std::vector<float> row = {1.0f, 1.00048828125f, -2.5f, 12.5f, 1e-7f, 0.1f, 3.0f, 4.0f, 127.0f, -63.5f};
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const KvType type : kTypes) {
      Storage storage({type, 1, 10}, 70);
      const int32_t slot = 66;
      store_keys(storage.layout, row.data(), 1, &slot, storage.keys.data());
      store_values(storage.layout, row.data(), 1, &slot, storage.values.data());
      for (int d = 0; d < 10; ++d) {
        float expected = row[static_cast<size_t>(d)];
        if (type == KvType::kF16) expected = f16_to_f32(f32_to_f16(expected));
        if (type == KvType::kBF16) expected = bf16_to_f32(f32_to_bf16(expected));
        if (type == KvType::kQ8) expected = std::nearbyint(expected);  // the largest is 127: the scale is 1
        EXPECT_EQ(storage.key(slot, 0, d), expected) << cpu_level_name(level) << " " << kv_type_name(type) << " " << d;
        EXPECT_EQ(storage.value(slot, 0, d), expected) << cpu_level_name(level) << " " << kv_type_name(type);
      }
    }
  }
}

TEST_F(KvStoreTest, ScalesEveryHeadOfEveryToken) {
  const KvLayout layout{KvType::kQ8, 2, 40};
  Storage storage(layout, 20);
  Random random(5);
  std::vector<float> rows(20 * 80);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = random.normal() * std::pow(10.0f, static_cast<float>(i / 40 % 7));
  std::vector<int32_t> slots(20);
  std::iota(slots.begin(), slots.end(), 0);
  store_keys(layout, rows.data(), 20, slots.data(), storage.keys.data());
  store_values(layout, rows.data(), 20, slots.data(), storage.values.data());
  for (int32_t s = 0; s < 20; ++s)
    for (int h = 0; h < 2; ++h) {
      const float* head = rows.data() + s * 80 + h * 40;
      std::vector<float> turned(head, head + 40);
      rotate_heads(turned.data(), 1, 40);
      float largest = 0, largest_turned = 0;
      for (size_t d = 0; d < 40; ++d) {
        largest = std::max(largest, std::abs(head[d]));
        largest_turned = std::max(largest_turned, std::abs(turned[d]));
      }
      for (int d = 0; d < 40; ++d) {
        EXPECT_NEAR(storage.value(s, h, d), head[d], largest / 253) << s << " " << h << " " << d;
        EXPECT_NEAR(storage.key(s, h, d), turned[static_cast<size_t>(d)], largest_turned / 253) << s << " " << h;
      }
    }
}

// Prompts are stored many tokens at a time, answers one: the bytes must be the same, and those of others untouched.
TEST_F(KvStoreTest, WritesTheSameAloneAndInCompany) {
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const KvType type : kTypes) {
      for (const int head_dim : {64, 40, 6}) {
        const KvLayout layout{type, 3, head_dim};
        const int64_t width = 3 * head_dim;
        Random random(7);
        std::vector<float> rows(static_cast<size_t>(150 * width));
        for (float& x : rows) x = random.normal();
        std::vector<int32_t> slots;
        for (int32_t i = 0; i < 150; ++i) slots.push_back(i < 70 ? 7 + i : i < 80 ? 410 - 3 * i : 205 + i);
        Storage together(layout, 400), alone(layout, 400);
        store_keys(layout, rows.data(), 150, slots.data(), together.keys.data());
        store_values(layout, rows.data(), 150, slots.data(), together.values.data());
        for (size_t i = 0; i < 150; ++i) {
          store_keys(layout, rows.data() + static_cast<int64_t>(i) * width, 1, &slots[i], alone.keys.data());
          store_values(layout, rows.data() + static_cast<int64_t>(i) * width, 1, &slots[i], alone.values.data());
        }
        EXPECT_EQ(together.keys, alone.keys) << cpu_level_name(level) << " " << kv_type_name(type) << " " << head_dim;
        EXPECT_EQ(together.values, alone.values) << cpu_level_name(level) << " " << kv_type_name(type);
        EXPECT_EQ(together.values.back(), std::byte{0x55});
      }
    }
  }
}

// A broken model must be seen, not smoothed over.
TEST_F(KvStoreTest, KeepsZerosAndWhatIsNotANumber) {
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const KvType type : kTypes) {
      std::vector<float> rows(3 * 8, 0.0f);
      rows[9] = std::numeric_limits<float>::quiet_NaN();
      rows[17] = 1e-38f;
      rows[18] = -0.0f;
      Storage storage({type, 1, 8}, 64);
      const int32_t slots[] = {0, 1, 2};
      store_keys(storage.layout, rows.data(), 3, slots, storage.keys.data());
      for (int d = 0; d < 8; ++d) EXPECT_EQ(storage.key(0, 0, d), 0.0f) << kv_type_name(type);
      EXPECT_TRUE(std::isnan(storage.key(1, 0, 1))) << cpu_level_name(level) << " " << kv_type_name(type);
      for (int d = 0; d < 8; ++d) EXPECT_NEAR(storage.key(2, 0, d), 0.0f, 1e-37f) << kv_type_name(type);
    }
  }
}

TEST(KvLayout, CountsBytesInWholeBlocks) {
  EXPECT_EQ((KvLayout{KvType::kF16, 3, 64}.bytes(64)), 3u * 64 * 64 * 2);
  EXPECT_EQ((KvLayout{KvType::kBF16, 3, 64}.bytes(65)), 2u * 3 * 64 * 64 * 2);
  EXPECT_EQ((KvLayout{KvType::kF32, 3, 64}.bytes(1)), 3u * 64 * 64 * 4);
  EXPECT_EQ((KvLayout{KvType::kQ8, 3, 64}.bytes(128)), 2u * 3 * 64 * (64 + 4));
  EXPECT_EQ((KvLayout{KvType::kQ8, 1, 40}.bytes(64)), 64u * (48 + 4));
}

}  // namespace
}  // namespace thimble
