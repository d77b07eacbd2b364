#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "models/ops.h"

namespace thimble {

// Buffers that go round between the ops of a step and between steps. Each is made for the largest batch so far, so
// that batches of every length share them and steps after the first ask the system for nothing. They are parts of
// slabs: each on 2 MB pages of its own would leave a seventh of the memory empty. Not for use by several threads.
class BufferPool {
 public:
  // To be called before a batch's first take, while no buffer of an earlier batch is in use.
  void begin_batch(int64_t rows);
  Buffer<float> take(int64_t rows, int64_t cols);  // at least rows * cols values, unspecified
  Buffer<uint16_t> take_bf16(int64_t rows, int64_t cols);
  void give(Buffer<float>&& buffer);
  void give(Buffer<uint16_t>&& buffer);
  size_t allocated_bytes() const { return allocated_; }  // in use or not

 private:
  template <class T>
  Buffer<T> take_from(std::map<size_t, std::vector<Buffer<T>>>& idle, int64_t count);

  std::vector<ByteBuffer> slabs_;
  size_t slab_used_ = 0;                                 // of the last one
  std::map<size_t, std::vector<Buffer<float>>> floats_;  // idle, by size
  std::map<size_t, std::vector<Buffer<uint16_t>>> halves_;
  int64_t rows_ = 0;  // of the largest batch so far
  size_t allocated_ = 0;
};

// An activation on the tape. Its values may be dropped after the forward pass where backward doesn't read them,
// kept as bf16 alone, or made again from what is kept.
struct Value : Activation {
  explicit Value(BufferPool& buffer_pool) : pool(buffer_pool) {}
  ~Value();
  Value(const Value&) = delete;
  Value& operator=(const Value&) = delete;

  BufferPool& pool;
  Buffer<uint16_t> bf16;         // of values, where a product read them or they are stored so
  bool needs_grad = false;       // something trained stands below it
  bool backward_reads = false;   // some op's backward pass reads the values
  bool product_reads = false;    // some op's backward pass reads them as a product's input
  bool keep_exact = false;       // not to be stored as bf16
  std::function<void()> remake;  // writes values again

  int64_t count() const { return rows * cols; }
  bool has_grad() const { return !grad.empty(); }
  float* ensure_values();         // makes them where they were dropped
  const uint16_t* ensure_bf16();  // makes the bf16 copy
  void drop_values();             // back to the pool
  void drop_bf16();

  // Where to write the gradient, and whether something stands there that it must be added to.
  struct Target {
    float* data;
    bool accumulate;
  };
  Target grad_target();
  void put_grad(Buffer<float>&& contribution);  // takes a whole gradient; gives it back where nobody needs it
};
using ValuePtr = std::shared_ptr<Value>;

void copy_values(const float* from, int64_t count, float* to);  // on all threads

inline Value& value_of(const Act& act) { return static_cast<Value&>(*act); }
inline ValuePtr value_ptr(const Act& act) { return std::static_pointer_cast<Value>(act); }

// Seconds by op, "attention" and "attention backward"; the benchmark reads them.
using OpSeconds = std::map<std::string, double>;

// Adds the time of a scope to an op's; does nothing without a place to add to.
class OpTimer {
 public:
  OpTimer(OpSeconds* seconds, const char* op, const char* pass = "") : seconds_(seconds), op_(op), pass_(pass) {
    if (seconds_ != nullptr) start_ = std::chrono::steady_clock::now();
  }
  ~OpTimer() {
    if (seconds_ == nullptr) return;
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start_;
    (*seconds_)[std::string(op_) + pass_] += taken.count();
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  OpSeconds* seconds_;
  const char* op_;
  const char* pass_;
  std::chrono::steady_clock::time_point start_;
};

// What the forward pass did, to be run backwards. Every entry drops what it holds as soon as it has run.
class Tape {
 public:
  void record(const char* op, std::function<void()> backward) { entries_.push_back({op, std::move(backward)}); }
  void run_backward(OpSeconds* seconds = nullptr) {
    while (!entries_.empty()) {
      const Entry entry = std::move(entries_.back());
      entries_.pop_back();
      const OpTimer timer(seconds, entry.op, " backward");
      entry.backward();
    }
  }
  void clear() { entries_.clear(); }

 private:
  struct Entry {
    const char* op;
    std::function<void()> backward;
  };
  std::vector<Entry> entries_;
};

}  // namespace thimble
