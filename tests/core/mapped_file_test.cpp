#include "core/mapped_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "core/memory.h"

namespace thimble {
namespace {

TEST(MappedFile, WhatWasLetGoIsReadAgain) {
  const auto path = std::filesystem::temp_directory_path() / ("thimble-mapped-" + std::to_string(::getpid()));
  constexpr size_t kBytes = size_t{16} << 20;
  std::ofstream(path) << std::string(kBytes, 'x');
  const MappedFile file(path);
  const auto count = [&] {
    size_t found = 0;
    for (const std::byte b : file.bytes()) found += b == std::byte{'x'};
    return found;
  };
  EXPECT_EQ(count(), kBytes);
  const size_t full = resident_memory();
  let_go_of_mapped(file.bytes().subspan(100, kBytes - 200));
  EXPECT_LT(resident_memory() + kBytes / 2, full);
  EXPECT_EQ(count(), kBytes);
  std::filesystem::remove(path);
}

TEST(MappedFile, OtherMemoryIsLeftAlone) {
  const std::vector<std::byte> own(size_t{1} << 20, std::byte{5});
  let_go_of_mapped(own);
  for (const std::byte b : own) ASSERT_EQ(b, std::byte{5});
  let_go_of_mapped({});
}

}  // namespace
}  // namespace thimble
