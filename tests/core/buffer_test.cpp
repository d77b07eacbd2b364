#include "core/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "core/memory.h"

namespace thimble {
namespace {

TEST(ByteBuffer, IsZeroAlignedAndWritableToItsEnd) {
  for (const size_t bytes : {size_t{1}, size_t{4097}, (size_t{2} << 20) - 1, size_t{2} << 20, (size_t{5} << 20) + 13})
    for (const size_t small : {size_t{0}, size_t{1}, size_t{100'000}, size_t{2} << 20, size_t{1} << 30}) {
      ByteBuffer buffer(bytes, small);
      ASSERT_EQ(buffer.size(), bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
      EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + bytes, [](std::byte b) { return b == std::byte{0}; }));
      std::memset(buffer.data(), 7, bytes);
      const ByteBuffer moved = std::move(buffer);
      EXPECT_EQ(buffer.data(), nullptr);
      EXPECT_EQ(moved.data()[bytes - 1], std::byte{7});
    }
}

TEST(ByteBuffer, TakesMemoryOnlyWhereItIsWritten) {
  const size_t before = resident_memory();
  std::vector<ByteBuffer> buffers;
  for (int i = 0; i < 64; ++i) {
    buffers.emplace_back(size_t{4} << 20, 100'000);
    std::memset(buffers.back().data(), 1, 50'000);  // the small beginning
  }
  EXPECT_LT(resident_memory(), before + (size_t{32} << 20)) << "of 256 MB, 3.2 MB were written";
}

}  // namespace
}  // namespace thimble
