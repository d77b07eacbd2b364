#include "kernels/kernel_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/machine_peaks.h"

namespace thimble {
namespace {
using ::testing::HasSubstr;

class AtLevel {
 public:
  explicit AtLevel(CpuLevel level) { force_cpu(level); }
  ~AtLevel() { force_cpu(cpu_detected()); }
};

std::string packed(DType type) { return kernel_choices()[static_cast<size_t>(type)].packed; }

TEST(KernelChoice, NamesTheInstructionOfEveryTypeAndLevel) {
  for (const CpuLevel level : cpu_levels()) {
    const AtLevel at(level);
    ASSERT_EQ(kernel_choices().size(), static_cast<size_t>(kDTypeCount));
    EXPECT_THAT(packed(DType::kQ4_0), HasSubstr("int8"));
    EXPECT_THAT(packed(DType::kF32), HasSubstr("f32"));
    EXPECT_EQ(packed_arithmetic(DType::kQ4_0, true), Arithmetic::kF32);
    const bool bf16 = level == CpuLevel::kAvx512Bf16;
    EXPECT_THAT(packed(DType::kBF16), HasSubstr(bf16 ? "vdpbf16ps" : "f32"));
    EXPECT_THAT(kernel_choices().front().training, HasSubstr(bf16 ? "vdpbf16ps" : "f32"));
    EXPECT_THAT(packed(DType::kQ6_K), HasSubstr(level >= CpuLevel::kAvx512 ? "vpdpbusd"
                                                : level == CpuLevel::kAvx2 ? "vpmaddubsw"
                                                                           : "plain"));
  }
}

TEST(MachinePeaks, AreMeasuredAtEveryLevel) {
  const PeakProbe probe(size_t{8} << 20);
  for (const CpuLevel level : cpu_levels()) {
    const AtLevel at(level);
    const MachinePeaks peaks = probe.measure();
    for (const double peak : {peaks.int8_gops, peaks.bf16_gops, peaks.f32_gops, peaks.read_gbytes}) EXPECT_GT(peak, 0);
    if (level >= CpuLevel::kAvx2) {
      EXPECT_GT(peaks.int8_gops, peaks.f32_gops) << cpu_level_name(level);
    }
  }
}

}  // namespace
}  // namespace thimble
