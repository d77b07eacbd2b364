#include "core/child_process.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace thimble {
namespace {

TEST(ChildProcess, GivesOutputTimesAndStatus) {
  const ChildResult r = run_child("/bin/sh", {"-c", "printf a; sleep 0.3; printf 'b c'; exit 7"});
  EXPECT_EQ(r.out, "ab c");
  EXPECT_EQ(r.status, 7);
  EXPECT_LT(r.first_output_s, r.seconds - 0.2);
  EXPECT_GE(r.seconds, 0.3);
  EXPECT_GT(r.peak_memory_bytes, 0u);
}

TEST(ChildProcess, WhoWritesNothingIsTimedToItsEnd) {
  const ChildResult r = run_child("/bin/sh", {"-c", "cat; echo unseen >&2; kill -9 $$"});
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(r.status, 128 + 9);
  EXPECT_GT(r.first_output_s, 0);
}

TEST(ChildProcess, WhatIsNotThereIsSaid) { EXPECT_THROW(run_child("/no/such/program", {}), Error); }

}  // namespace
}  // namespace thimble
