#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

// Tests that need the data beside the checkout say that they were skipped where a user lacks it,
// and fail on the build machine (CI=true), where it must be there.
#define THIMBLE_REQUIRE_DATA(needed)                                                  \
  if (const std::filesystem::path p_ = (needed); !std::filesystem::exists(p_)) {      \
    const char* ci_ = std::getenv("CI");                                              \
    if (ci_ != nullptr && std::string(ci_) == "true") FAIL() << "missing " << p_;     \
    GTEST_SKIP() << "skipped: " << p_ << " is not on this machine";                   \
  }

namespace thimble::test {

// The data folder beside the checkout: vocabularies, templates, data sets.
inline std::filesystem::path data(const std::string& name) { return std::filesystem::path(THIMBLE_DATA) / name; }

// Committed goldens, made by the scripts in tests/oracle.
inline std::filesystem::path golden(const std::string& name) { return std::filesystem::path(THIMBLE_GOLDEN) / name; }

}  // namespace thimble::test
