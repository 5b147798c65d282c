#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mobius {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceOnAValidThread) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const std::int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
      std::atomic<bool> thread_ok{true};
      pool.parallel_for(tasks, [&](std::int64_t task, int thread) {
        runs[static_cast<std::size_t>(task)].fetch_add(1);
        if (thread < 0 || thread >= threads) thread_ok = false;
      });
      for (const auto& count : runs) ASSERT_EQ(count.load(), 1);
      EXPECT_TRUE(thread_ok);
    }
  }
}

TEST(ThreadPool, MakesTheTasksWritesVisibleToTheCaller) {
  ThreadPool pool(4);
  // Many short loops with plain writes: a missing synchronisation shows here and under TSan.
  std::vector<int> values(257);
  for (int round = 0; round < 20000; ++round) {
    const std::int64_t tasks = 1 + round % 257;
    pool.parallel_for(tasks, [&](std::int64_t task, int) {
      values[static_cast<std::size_t>(task)] = round + static_cast<int>(task);
    });
    for (std::int64_t task = 0; task < tasks; ++task) {
      ASSERT_EQ(values[static_cast<std::size_t>(task)], round + task);
    }
  }
}

TEST(ThreadPool, WorkersWakeAfterSleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    // All three threads must be in the loop at once for it to end.
    std::atomic<int> arrived{0};
    pool.parallel_for(3, [&](std::int64_t, int) {
      arrived.fetch_add(1);
      while (arrived.load() < 3) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 3);
  }
}

TEST(ThreadPool, TheCallerSleepsUntilALongTaskEnds) {
  ThreadPool pool(2);
  std::atomic<int> done{0};
  pool.parallel_for(2, [&](std::int64_t, int thread) {
    if (thread != 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    done.fetch_add(1);
  });
  EXPECT_EQ(done.load(), 2);
}

TEST(ThreadPool, RethrowsOneExceptionAfterAllTasksAndStaysUsable) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    std::atomic<int> runs{0};
    EXPECT_THROW(pool.parallel_for(100,
                                   [&](std::int64_t task, int) {
                                     runs.fetch_add(1);
                                     if (task % 10 == 3) throw std::runtime_error("task");
                                   }),
                 std::runtime_error);
    EXPECT_EQ(runs.load(), 100);
    EXPECT_NO_THROW(pool.parallel_for(100, [&](std::int64_t, int) { runs.fetch_add(1); }));
    EXPECT_EQ(runs.load(), 200);
  }
}

TEST(ThreadPool, RejectsBadArguments) {
  EXPECT_THROW(ThreadPool(0), std::invalid_argument);
  EXPECT_THROW(ThreadPool(-2), std::invalid_argument);
  ThreadPool pool(2);
  EXPECT_THROW(pool.parallel_for(std::int64_t{1} << 32, [](std::int64_t, int) {}),
               std::invalid_argument);
}

}  // namespace
}  // namespace mobius
