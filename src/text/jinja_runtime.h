#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "text/jinja.h"

namespace thimble::jinja {

// What Python would raise while rendering; Template::render turns it into an Error with the template's line.
class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& message, bool raised_by_template = false)
      : std::runtime_error(message), raised_by_template(raised_by_template) {}
  bool raised_by_template;
};

constexpr int kMaxDepth = 200;         // values inside values, macros inside macros
constexpr int kMaxSyntaxDepth = 500;   // expressions inside expressions, blocks inside blocks

// The account of one rendering: every piece of work is charged before it is done.
struct Runtime {
  explicit Runtime(const RenderOptions& options) : options(options) {}

  void step(uint64_t count = 1) {
    if ((steps += count) > options.max_steps) throw Failure("the template runs for too many steps");
  }
  void charge(uint64_t count) {
    if ((bytes += count) > options.max_bytes || count > options.max_bytes) {
      throw Failure("the template uses too much memory");
    }
  }
  // Before a string of this size is made.
  void charge_text(uint64_t size) {
    if (size > options.max_output) throw Failure("the template makes a text that is too long");
    charge(size + 64);
  }

  const RenderOptions& options;
  uint64_t steps = 0;
  uint64_t bytes = 0;
  int depth = 0;
};

// One more level of C++ recursion that the template or its data drive.
class DepthGuard {
 public:
  DepthGuard(Runtime& runtime, int limit = kMaxSyntaxDepth * 2) : runtime_(runtime) {
    if (runtime_.depth >= limit) throw Failure("maximum recursion depth exceeded");
    ++runtime_.depth;
  }
  ~DepthGuard() { --runtime_.depth; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Runtime& runtime_;
};

}  // namespace thimble::jinja
