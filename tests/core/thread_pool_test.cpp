#include "core/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace thimble {
namespace {

TEST(ThreadPool, CallsEveryIndexOnceInManyShortLoops) {
  for (const int size : {1, 2, 5}) {
    ThreadPool pool(size);
    for (int loop = 0; loop < 5000; ++loop) {
      const int64_t count = loop % 7;
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      pool.parallel_for(count, [&](int64_t i, int thread) {
        ASSERT_LT(thread, size);
        ++calls[static_cast<size_t>(i)];
      });
      for (const auto& n : calls) ASSERT_EQ(n, 1) << "loop " << loop << ", " << size << " threads";
    }
  }
}

TEST(ThreadPool, RunsALoopInsideALoop) {
  ThreadPool pool(3);
  std::atomic<int> calls = 0;
  pool.parallel_for(8, [&](int64_t, int) { pool.parallel_for(8, [&](int64_t, int) { ++calls; }); });
  EXPECT_EQ(calls, 64);
}

TEST(ThreadPool, RethrowsAndGoesOn) {
  ThreadPool pool(2);
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(pool.parallel_for(16, [](int64_t i, int) { if (i == 5) throw std::runtime_error("five"); }),
                 std::runtime_error);
    std::atomic<int> calls = 0;
    pool.parallel_for(16, [&](int64_t, int) { ++calls; });
    EXPECT_EQ(calls, 16);
  }
}

}  // namespace
}  // namespace thimble
