#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace mobius {

/// A fixed set of threads that share the tasks of one loop at a time. The calling thread takes part
/// as thread 0, so a pool of one thread starts none.
///
/// Workers spin for some microseconds after a loop, since the next operation of a step follows at
/// once, and then sleep. A loop does not wait for a sleeping worker whose help it no longer needs.
///
/// Not thread-safe: one thread calls parallel_for, and tasks must not call it.
class ThreadPool {
 public:
  /// threads >= 1, else std::invalid_argument.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Runs body(task, thread) for every task in [0, tasks), 0 <= thread < size(), and returns when
  /// all are done. Tasks are handed out in ascending order to whichever thread is free. If tasks
  /// throw, every task still runs and the first exception caught is rethrown here. tasks < 2^32.
  void parallel_for(std::int64_t tasks,
                    const std::function<void(std::int64_t task, int thread)>& body);

 private:
  using Body = std::function<void(std::int64_t, int)>;

  void run_worker(int thread);
  /// Takes tasks of the current loop until none is left.
  void help(int thread);
  void run_task(const Body& body, std::int64_t task, int thread);

  // The loop in progress. ticket_ holds the loop's number (high half) and how many of its tasks are
  // not taken yet (low half). Whoever lowers that count owns a task, and thereby knows that body_
  // and tasks_, read before, belong to this loop: they change only after all of its tasks are done.
  std::atomic<std::uint64_t> ticket_{0};
  std::atomic<const Body*> body_{nullptr};
  std::atomic<std::uint32_t> tasks_{0};
  std::atomic<std::uint32_t> done_{0};

  std::atomic<bool> stop_{false};
  std::atomic<int> sleeping_workers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::mutex mutex_;
  std::condition_variable work_ready_;
  std::condition_variable all_done_;
  std::exception_ptr error_;  ///< guarded by mutex_
  std::vector<std::thread> workers_;
};

}  // namespace mobius
