#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace thimble {

// A fixed set of threads that run one parallel loop at a time; the caller is one of them. Workers spin for a
// short while between loops (kernels follow each other within microseconds), then sleep.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // >= 1; 1 means everything runs in the caller
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  // Calls body(index, thread) once for every index in [0, count), in any order, on all threads; thread is in
  // [0, size()). Thread t begins with the t-th part of the indices and then helps the others: loops over the same
  // rows, in the same order, find them in their own core's cache. Returns when all are done; rethrows the first
  // exception. Not reentrant: a loop that is started inside a loop runs in the calling thread alone.
  void parallel_for(int64_t count, const std::function<void(int64_t index, int thread)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The program's pool, made at first use with one thread a core, or what set_threads asked for before.
ThreadPool& threads();
void set_threads(int count);  // replaces the pool; call it only while no loop runs

}  // namespace thimble
