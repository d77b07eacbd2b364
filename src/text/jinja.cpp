#include "text/jinja.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

namespace thimble::jinja {

struct Template::Program {
  Body body;
  Resolved resolved;
};

Template Template::parse(std::string source) {
  constexpr size_t kMaxSource = 4u << 20;
  if (source.size() > kMaxSource) {
    throw Error(fmt::format("the template is too long: {} bytes, where {} is the limit", source.size(), kMaxSource));
  }
  auto program = std::make_shared<Program>();
  program->body = Parser(tokenize(source)).parse();
  program->resolved = resolve(program->body);
  return Template(std::move(program));
}

namespace {
RenderResult render_with(const Body& body, const Resolved& resolved, const nlohmann::ordered_json& context,
                         const RenderOptions& options, bool mark) {
  if (!context.is_object()) throw Error("a template's context must be a JSON object");
  Interpreter interpreter(options, mark);
  try {
    return interpreter.run(body, resolved, context);
  } catch (const Failure& failure) {
    if (failure.raised_by_template) {
      throw Error(fmt::format("{} (raised by the template, line {})", failure.what(), interpreter.line()));
    }
    throw Error(fmt::format("the template fails in line {}: {}", interpreter.line(), failure.what()));
  }
}
}  // namespace

std::string Template::render(const nlohmann::ordered_json& context, const RenderOptions& options) const {
  return render_with(program_->body, program_->resolved, context, options, false).text;
}

RenderResult Template::render_marked(const nlohmann::ordered_json& context, const RenderOptions& options) const {
  return render_with(program_->body, program_->resolved, context, options, true);
}

bool Template::uses_variable(const std::string& name) const { return program_->resolved.context_names.contains(name); }

bool Template::has_generation_blocks() const { return program_->resolved.has_generation; }

}  // namespace thimble::jinja
