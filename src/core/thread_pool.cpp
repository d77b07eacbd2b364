#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/machine.h"

namespace thimble {
namespace {
thread_local bool inside_loop = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}
}  // namespace

struct ThreadPool::State {
  // A thread's own part of the indices, from which others help themselves when theirs is done. On a cache line of its
  // own.
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t last = 0;
  };

  int size = 1;
  std::vector<std::jthread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};  // one more for each loop
  // A loop is joined by the workers that come while it is open; one that the system keeps from running is not waited
  // for. A worker counts itself before it looks whether the loop is open, the caller closes it before it looks at the
  // count: one of the two always sees the other.
  std::atomic<bool> open{false};
  std::atomic<int> working{0};  // workers that are inside, or looking
  std::vector<Part> parts;
  std::atomic<bool> stop{false};
  const std::function<void(int64_t, int)>* body = nullptr;
  std::exception_ptr failure;

  void drain(int thread) {
    inside_loop = true;
    try {
      for (int k = 0; k < size; ++k) {
        Part& part = parts[static_cast<size_t>((thread + k) % size)];
        while (part.next.load(std::memory_order_relaxed) < part.last)
          if (const int64_t i = part.next.fetch_add(1, std::memory_order_relaxed); i < part.last) (*body)(i, thread);
      }
    } catch (...) {
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
      for (Part& part : parts) part.next.store(part.last, std::memory_order_relaxed);
    }
    inside_loop = false;
  }

  void work(int thread) {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < 4000 && generation.load(std::memory_order_acquire) == seen; ++spin) relax();
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load()) return;
      working.fetch_add(1);
      if (open.load()) drain(thread);
      working.fetch_sub(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  state_->size = std::max(1, threads);
  state_->parts = std::vector<State::Part>(static_cast<size_t>(state_->size));
  for (int i = 1; i < state_->size; ++i) state_->workers.emplace_back([s = state_.get(), i] { s->work(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->stop = true;
    state_->generation.fetch_add(1, std::memory_order_release);
  }
  state_->wake.notify_all();
  state_->workers.clear();  // join while the mutex still lives
}

int ThreadPool::size() const { return state_->size; }

void ThreadPool::parallel_for(int64_t count, const std::function<void(int64_t, int)>& body) {
  if (count <= 0) return;
  State& s = *state_;
  if (s.size == 1 || count == 1 || inside_loop) {
    const bool outer = inside_loop;
    inside_loop = true;
    try {
      for (int64_t i = 0; i < count; ++i) body(i, 0);
    } catch (...) {
      inside_loop = outer;
      throw;
    }
    inside_loop = outer;
    return;
  }
  s.body = &body;
  s.failure = nullptr;
  for (int t = 0; t < s.size; ++t) {
    State::Part& part = s.parts[static_cast<size_t>(t)];
    part.last = count * (t + 1) / s.size;
    part.next.store(count * t / s.size, std::memory_order_relaxed);
  }
  s.open.store(true);
  {
    const std::scoped_lock lock(s.mutex);
    s.generation.fetch_add(1, std::memory_order_release);
  }
  s.wake.notify_all();
  s.drain(0);
  s.open.store(false);
  for (int spin = 0; s.working.load(std::memory_order_acquire) > 0; ++spin) {
    if (spin < 20000) relax();
    else std::this_thread::yield();
  }
  if (s.failure) std::rethrow_exception(s.failure);
}

namespace {
std::unique_ptr<ThreadPool>& global_pool() {
  static std::unique_ptr<ThreadPool> pool;
  return pool;
}
}  // namespace

ThreadPool& threads() {
  auto& pool = global_pool();
  if (!pool) pool = std::make_unique<ThreadPool>(usable_cores());
  return *pool;
}

void set_threads(int count) { global_pool() = std::make_unique<ThreadPool>(count); }

}  // namespace thimble
