#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace thimble::jinja {

// What a template may use. The defaults are far beyond any real chat template, and keep a forged one from
// filling the memory or running for ever.
struct RenderOptions {
  size_t max_output = 64u << 20;    // bytes of rendered text, and of any one string
  uint64_t max_steps = 20'000'000;  // expressions, statements and elements visited
  uint64_t max_bytes = 1u << 30;    // bytes that values take or that searches read, summed over the rendering
  std::optional<std::tm> now;       // the clock that strftime_now() reads; without it the local time
};

// Bytes [begin, end) of the text that were written inside {% generation %}.
struct Span {
  size_t begin;
  size_t end;
};

struct RenderResult {
  std::string text;
  std::vector<Span> generated;  // in order, disjoint
};

// A Jinja template that renders what Python's jinja2 3.1 renders in the environment that transformers gives to
// chat templates: sandboxed and immutable, trim_blocks, lstrip_blocks, loop controls, {% generation %}, and the
// globals raise_exception, strftime_now, namespace and dict. What is refused stands in docs/chat-templates.md.
class Template {
 public:
  // Throws Error, with the template's line, for bad syntax, unknown filters and tests, and what is refused.
  static Template parse(std::string source);

  // `context` is an object: its members are the template's variables, in order. Throws Error, with the line, where
  // Python would raise; raise_exception(message) gives that message.
  std::string render(const nlohmann::ordered_json& context, const RenderOptions& options = {}) const;
  // The same, and where the {% generation %} blocks' text lies. A {% generation %} block inside a macro, a set or
  // filter block or a recursive loop throws Error: its place in the text is not known.
  RenderResult render_marked(const nlohmann::ordered_json& context, const RenderOptions& options = {}) const;

  bool uses_variable(const std::string& name) const;  // read from the context somewhere in the template
  bool has_generation_blocks() const;

 private:
  struct Program;
  explicit Template(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace thimble::jinja
