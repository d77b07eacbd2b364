#include "core/cpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/machine.h"

namespace thimble {
namespace {
using ::testing::HasSubstr;

std::string refusal(std::string_view name, CpuLevel most) {
  try {
    cpu_level_named(name, "--cpu-level", most);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

#if defined(__x86_64__)
TEST(Cpu, LevelsAreKnownByTheirNames) {
  for (const CpuLevel level : {CpuLevel::kPlain, CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kAvx512Bf16})
    EXPECT_EQ(cpu_level_named(cpu_level_name(level), "test", CpuLevel::kAvx512Bf16), level);
}

TEST(Cpu, WhatTheMachineLacksIsRefusedWithWhatItHas) {
  const std::string said = refusal("avx512bf16", CpuLevel::kAvx2);
  EXPECT_THAT(said, HasSubstr("--cpu-level avx512bf16"));
  EXPECT_THAT(said, HasSubstr("no more than avx2"));
  EXPECT_EQ(refusal("avx2", CpuLevel::kAvx2), "");
  EXPECT_EQ(refusal("plain", CpuLevel::kAvx2), "");
}

TEST(Cpu, UnknownLevelsAreRefusedWithTheKnownOnes) {
  EXPECT_THAT(refusal("sse9", CpuLevel::kAvx512Bf16), HasSubstr("plain, avx2, avx512, avx512bf16"));
  EXPECT_THAT(refusal("", CpuLevel::kAvx512Bf16), HasSubstr("there is no such level"));
  EXPECT_THAT(refusal("neon", CpuLevel::kAvx512Bf16), HasSubstr("there is no such level"));
}

TEST(Cpu, OnlyLowerLevelsAreShort) {
  EXPECT_EQ(cpu_shortfall(CpuLevel::kAvx512Bf16), "");
  EXPECT_THAT(std::string(cpu_shortfall(CpuLevel::kAvx512)), HasSubstr("BF16"));
  EXPECT_THAT(std::string(cpu_shortfall(CpuLevel::kAvx2)), HasSubstr("VNNI"));
  EXPECT_THAT(std::string(cpu_shortfall(CpuLevel::kPlain)), HasSubstr("AVX2"));
}
#endif

TEST(Machine, HasACoreAtLeast) {
  const Machine machine = describe_machine();
  EXPECT_GE(machine.cores, 1);
  EXPECT_THAT((std::vector<std::string>{"", "always", "madvise", "never"}), ::testing::Contains(machine.huge_pages));
}

}  // namespace
}  // namespace thimble
