#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "calls/constraint.h"

namespace thimble {

// Compiled grammars of one tokenizer, the last used of them kept: clients send the same tools with every request, and
// compiling twenty takes as long as many answers. Thread-safe; the tokenizer's table is made at first use.
class ConstraintCache {
 public:
  explicit ConstraintCache(std::function<TokenTable()> tokens) : tokens_(std::move(tokens)) {}

  // As ConstraintFactory::compile. Throws Error for what can't be enforced.
  std::shared_ptr<const ConstraintSet> get(std::span<const Tool> tools, const ConstraintOptions& options);

  // Ever, for metrics.
  int64_t hits() const { return hits_; }
  int64_t compiled() const { return compiled_; }
  double compile_seconds() const { return compile_s_; }

 private:
  static constexpr size_t kKept = 64;

  std::function<TokenTable()> tokens_;
  std::atomic<int64_t> hits_{0}, compiled_{0};
  std::atomic<double> compile_s_{0};
  std::mutex mutex_;
  std::shared_ptr<const ConstraintFactory> factory_;
  std::list<std::pair<std::string, std::shared_ptr<const ConstraintSet>>> kept_;  // by grammar, last used first
};

}  // namespace thimble
