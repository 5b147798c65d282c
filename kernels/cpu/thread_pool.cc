#include "kernels/cpu/thread_pool.h"

#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mobius {
namespace {

// About 50 microseconds: longer than the gap between two operations of a step, far shorter than
// what a user would notice as load.
constexpr int kSpins = 1500;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

std::uint64_t loop_of(std::uint64_t ticket) {
  return ticket >> 32;
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  if (threads < 1) {
    throw std::invalid_argument("thread pool of " + std::to_string(threads) +
                                " threads, must be at least 1");
  }
  workers_.reserve(static_cast<std::size_t>(threads - 1));
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { run_worker(thread); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(std::int64_t tasks, const Body& body) {
  if (tasks > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("parallel_for over " + std::to_string(tasks) + " tasks");
  }
  if (tasks <= 0) return;
  if (tasks == 1 || workers_.empty()) {
    for (std::int64_t task = 0; task < tasks; ++task) run_task(body, task, 0);
  } else {
    const auto count = static_cast<std::uint32_t>(tasks);
    body_.store(&body, std::memory_order_relaxed);
    tasks_.store(count, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    // Sequentially consistent together with the sleepers' increment and their second look at the
    // ticket: either they see the new loop or this thread sees that they sleep.
    ticket_.store((loop_of(ticket_.load(std::memory_order_relaxed)) + 1) << 32 | count);
    if (sleeping_workers_.load() > 0) {
      { const std::lock_guard lock(mutex_); }
      work_ready_.notify_all();
    }
    help(0);
    for (int spin = 0; spin < kSpins && done_.load(std::memory_order_acquire) != count; ++spin) {
      pause_briefly();
    }
    if (done_.load(std::memory_order_acquire) != count) {
      std::unique_lock lock(mutex_);
      caller_sleeps_.store(true);
      all_done_.wait(lock, [&] { return done_.load() == count; });
      caller_sleeps_.store(false);
    }
  }
  std::exception_ptr error;
  {
    const std::lock_guard lock(mutex_);
    std::swap(error, error_);
  }
  if (error) std::rethrow_exception(error);
}

void ThreadPool::help(int thread) {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  for (;;) {
    const std::uint32_t tasks = tasks_.load(std::memory_order_relaxed);
    const Body* body = body_.load(std::memory_order_relaxed);
    const auto left = static_cast<std::uint32_t>(ticket);
    if (left == 0) return;
    // Success is what proves that tasks and body belong to the ticket's loop; see the header.
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    run_task(*body, tasks - left, thread);
    if (done_.fetch_add(1) + 1 == tasks && caller_sleeps_.load()) {
      { const std::lock_guard lock(mutex_); }
      all_done_.notify_one();
    }
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::run_task(const Body& body, std::int64_t task, int thread) {
  try {
    body(task, thread);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void ThreadPool::run_worker(int thread) {
  std::uint64_t seen = 0;
  for (;;) {
    const auto new_loop = [&] { return loop_of(ticket_.load()) != seen; };
    int spin = 0;
    while (spin < kSpins && !new_loop() && !stop_.load(std::memory_order_relaxed)) {
      pause_briefly();
      ++spin;
    }
    if (spin == kSpins) {
      std::unique_lock lock(mutex_);
      sleeping_workers_.fetch_add(1);
      work_ready_.wait(lock, [&] { return new_loop() || stop_.load(); });
      sleeping_workers_.fetch_sub(1);
    }
    if (stop_.load(std::memory_order_relaxed)) return;
    seen = loop_of(ticket_.load(std::memory_order_acquire));
    help(thread);
  }
}

}  // namespace mobius
