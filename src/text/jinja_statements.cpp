#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"

namespace thimble::jinja {

using S = Stmt::Kind;

Interpreter::~Interpreter() {
  for (auto& context : contexts_) context->clear();
  for (auto& activation : escaped_activations_) activation->slots.clear();
  for (auto& space : namespaces_) space->attributes = {};
  for (auto& loop : escaped_loops_) {
    loop->source.reset();
    loop->ahead.clear();
    loop->iterable.reset();
    loop->before.reset();
    loop->current.reset();
    loop->last_changed.reset();
    loop->recurse = nullptr;
  }
  for (auto& activation : escaped_activations_) activation->parent.reset();
}

NamespaceP Interpreter::make_namespace() {
  runtime.charge(512);
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

RenderResult Interpreter::run(const Body& body, const Resolved& resolved, const nlohmann::ordered_json& context) {
  contexts_.push_back(std::make_unique<Context>());
  Context& globals = *contexts_.back();
  add_globals(*this, globals);
  contexts_.push_back(std::make_unique<Context>(&globals));
  for (const auto& [name, value] : context.items()) {
    if (resolved.context_names.contains(name)) contexts_.back()->set(name, from_json(runtime, value));
  }
  contexts_.push_back(std::make_unique<Context>(contexts_.back().get()));  // what the top level exports

  auto activation = std::make_shared<Activation>();
  activation->slots.resize(static_cast<size_t>(resolved.slots));
  escaped_activations_.push_back(activation);
  const Environment env{std::move(activation), contexts_.back().get()};
  Output out;
  out.top = true;
  enter(resolved.frame, env);
  exec(body, env, out);
  return {std::move(out.text), std::move(generated_)};
}

void Interpreter::write(Output& out, std::string_view text) {
  if (out.text.size() + text.size() > runtime.options.max_output) {
    throw Failure("the template makes a text that is too long");
  }
  runtime.charge(text.size());
  out.text += text;
}

// What a filter or call block gives must be text; Python joins it without converting.
void Interpreter::write_text(Output& out, const Value& value) {
  if (value.text() == nullptr)
    throw Failure(fmt::format("the block gives {}, where a str is needed", type_name(value)));
  write(out, value.text()->utf8);
}

void Interpreter::enter(const FrameCode& frame, const Environment& env) {
  for (const auto& load : frame.loads) {
    runtime.step();
    Value& slot = env.activation->slots[static_cast<size_t>(load.slot)];
    switch (load.action) {
      case Load::Action::kParameter:
        break;
      case Load::Action::kResolve: {
        const Value* value = env.context->find(load.name);
        slot = value != nullptr ? *value : Value();
        break;
      }
      case Load::Action::kAlias:
        slot = Value(at(load.source, env));
        break;
      case Load::Action::kUndefined:
        slot = Value();
        break;
    }
  }
}

void Interpreter::leave(const FrameCode& frame, const Environment& env) {
  for (const auto& load : frame.loads) env.activation->slots[static_cast<size_t>(load.slot)] = Value();
}

void Interpreter::assign(const Target& target, const Environment& env, const Value& value) {
  switch (target.kind) {
    case Target::Kind::kName:
      at(target.slot, env) = value;
      return;
    case Target::Kind::kAttribute: {
      const Value space = at(target.slot, env);
      const auto* held = space.get<NamespaceP>();
      if (held == nullptr) throw Failure("cannot assign attribute on non-namespace object");
      if (target.name[0] == '_') {
        throw Failure(
            fmt::format("Chat templates cannot store underscore-prefixed attributes on a namespace, but got "
                        "'{}'. Please rename the attribute.",
                        target.name));
      }
      dict_set(runtime, (*held)->attributes, make_text(runtime, target.name), value);
      return;
    }
    case Target::Kind::kTuple: {
      if (!is_iterable(value)) throw Failure(fmt::format("cannot unpack non-iterable {} object", type_name(value)));
      const auto items = to_vector(runtime, value);
      const size_t expected = target.items.size();
      if (items.size() < expected) {
        throw Failure(fmt::format("not enough values to unpack (expected {}, got {})", expected, items.size()));
      }
      if (items.size() > expected) throw Failure(fmt::format("too many values to unpack (expected {})", expected));
      for (size_t i = 0; i < expected; ++i) assign(target.items[i], env, items[i]);
      return;
    }
  }
}

void Interpreter::export_names(const Stmt& stmt, const Environment& env) {
  for (const auto& [name, slot] : stmt.exports) {
    if (const Value& value = at(slot, env); !value.is_missing()) env.context->set(name, value);
  }
}

Interpreter::Flow Interpreter::exec(const Body& body, const Environment& env, Output& out) {
  const DepthGuard guard(runtime);
  for (const auto& stmt : body) {
    const Flow flow = exec(*stmt, env, out);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec(const Stmt& stmt, const Environment& env, Output& out) {
  runtime.step();
  line_ = stmt.line;
  switch (stmt.kind) {
    case S::kOutput:
      for (const auto& part : stmt.parts) {
        if (part.expr) {
          line_ = part.expr->line;
          const Value value = eval(*part.expr, env);
          if (const Text* text = value.text()) {
            write(out, text->utf8);
          } else {
            write(out, str(runtime, value));
          }
        } else {
          write(out, part.text);
        }
      }
      return Flow::kNormal;
    case S::kIf:
      return exec_if(stmt, env, out);
    case S::kFor: {
      const Value iterable = eval(*stmt.expr, env);
      if (!stmt.recursive) return exec_for(stmt, env, iterable, 0, out);
      write(out, recurse(stmt, env, iterable, 0).text()->utf8);
      return Flow::kNormal;
    }
    case S::kMacro:
      runtime.charge(sizeof(Macro));
      at(stmt.slot, env) =
          std::make_shared<const Macro>(Macro{stmt.macro->name, stmt.macro.get(), env.activation, env.context});
      export_names(stmt, env);
      return Flow::kNormal;
    case S::kCallBlock: {
      const Value caller = std::make_shared<const Macro>(Macro{"", stmt.macro.get(), env.activation, env.context});
      write_text(out, eval_call(*stmt.expr, env, &caller));
      return Flow::kNormal;
    }
    case S::kGeneration:
      exec_generation(stmt, env, out);
      return Flow::kNormal;
    case S::kSet: {
      for (const auto& slot : stmt.namespaces) {
        if (!at(slot, env).is<NamespaceP>()) throw Failure("cannot assign attribute on non-namespace object");
      }
      const Value value = eval(*stmt.expr, env);
      assign(stmt.targets[0], env, value);
      export_names(stmt, env);
      return Flow::kNormal;
    }
    case S::kSetBlock:
    case S::kFilterBlock:
      return exec_buffered(stmt, env, out);
    case S::kWith:
      return exec_with(stmt, env, out);
    case S::kBlock:
      exec_block(stmt, env, out);
      return Flow::kNormal;
    case S::kBreak:
      return Flow::kBreak;
    case S::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_if(const Stmt& stmt, const Environment& env, Output& out) {
  for (const auto& branch : stmt.branches) {
    line_ = branch.test->line;
    if (truthy(eval(*branch.test, env))) return exec(branch.body, env, out);
  }
  return exec(stmt.else_body, env, out);
}

Interpreter::Flow Interpreter::exec_buffered(const Stmt& stmt, const Environment& env, Output& out) {
  enter(stmt.frame, env);
  Output buffer;
  const Flow flow = exec(stmt.body, env, buffer);
  if (flow != Flow::kNormal) return flow;
  Value value = make_text(runtime, std::move(buffer.text));
  // A chain of filters: the innermost has no operand, it takes the text.
  std::vector<const Expr*> filters;
  for (const Expr* at = stmt.expr.get(); at != nullptr; at = at->operands[0].get()) filters.push_back(at);
  for (auto it = filters.rbegin(); it != filters.rend(); ++it) value = eval_filter(**it, env, value);
  if (stmt.kind == S::kFilterBlock) {
    write_text(out, value);
  } else {
    assign(stmt.targets[0], env, value);
    export_names(stmt, env);
  }
  leave(stmt.frame, env);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_with(const Stmt& stmt, const Environment& env, Output& out) {
  enter(stmt.frame, env);
  for (size_t i = 0; i < stmt.bindings.size(); ++i) {
    assign(stmt.targets[i], env, eval(*stmt.bindings[i].second, env));
  }
  const Flow flow = exec(stmt.body, env, out);
  leave(stmt.frame, env);
  return flow;
}

void Interpreter::exec_block(const Stmt& stmt, const Environment& env, Output& out) {
  Context* context = env.context;
  if (stmt.scoped) {
    contexts_.push_back(std::make_unique<Context>(env.context));
    context = contexts_.back().get();
    for (const auto& [name, slot] : stmt.exports) {
      if (const Value& value = at(slot, env); !value.is_missing()) context->set(name, value);
    }
  }
  auto activation = std::make_shared<Activation>();
  activation->slots.resize(static_cast<size_t>(stmt.slots));
  const ActivationGuard guard(*this, activation);
  const Environment inner{std::move(activation), context};
  enter(stmt.frame, inner);
  exec(stmt.body, inner, out);
}

void Interpreter::exec_generation(const Stmt& stmt, const Environment& env, Output& out) {
  if (mark_ && !out.top && inside_generation_ == 0) {
    throw Failure(
        "a {% generation %} block inside a macro, a set or filter block or a recursive loop: its place in "
        "the text is not known");
  }
  const Macro body{"", stmt.macro.get(), env.activation, env.context};
  Arguments none;
  ++inside_generation_;
  const Value text = call_macro(body, none);
  --inside_generation_;
  const size_t begin = out.text.size();
  write(out, text.text()->utf8);
  if (inside_generation_ == 0 && out.top && out.text.size() > begin) generated_.push_back({begin, out.text.size()});
}

IteratorP Interpreter::filtered(const Stmt& stmt, const Environment& env, IteratorP source) {
  auto activation = std::make_shared<Activation>();
  activation->slots.resize(static_cast<size_t>(stmt.test_slots));
  activation->parent = env.activation;
  escaped_activations_.push_back(activation);
  runtime.charge(sizeof(Activation) + static_cast<size_t>(stmt.test_slots) * sizeof(Value));
  const Environment inner{std::move(activation), env.context};
  const int depth = source->depth + 1;
  const auto next = [this, &stmt, inner, source = std::move(source), started = false](Value& item) mutable {
    if (!started) enter(stmt.test_frame, inner);
    started = true;
    while (source->next(item)) {
      runtime.step();
      assign(stmt.test_target, inner, item);
      if (truthy(eval(*stmt.test, inner))) return true;
    }
    return false;
  };
  return *make_iterator(runtime, "generator", depth, next).get<IteratorP>();
}

Value Interpreter::recurse(const Stmt& stmt, const Environment& env, const Value& iterable, int depth0) {
  const DepthGuard guard(runtime);
  auto activation = std::make_shared<Activation>();
  activation->slots.resize(static_cast<size_t>(stmt.slots));
  activation->parent = env.activation;
  runtime.charge(sizeof(Activation) + static_cast<size_t>(stmt.slots) * sizeof(Value));
  const ActivationGuard activation_guard(*this, activation);
  const Environment inner{std::move(activation), env.context};
  Output out;
  exec_for(stmt, inner, iterable, depth0, out);
  return make_text(runtime, std::move(out.text));
}

bool loop_next(Loop& loop, Value& item) {
  if (!loop.ahead.empty()) {
    item = std::move(loop.ahead.back());
    loop.ahead.pop_back();
  } else if (!loop.source || !loop.source->next(item)) {
    return false;
  }
  ++loop.index0;
  loop.before = std::move(loop.current);
  loop.current = std::make_unique<Value>(item);
  return true;
}

int64_t loop_length(Runtime& runtime, Loop& loop) {
  if (loop.length >= 0) return loop.length;
  Int length;
  if (loop.iterable && length_of(*loop.iterable, length)) return loop.length = static_cast<int64_t>(length);
  std::vector<Value> rest;
  Value item;
  while (loop.source && loop.source->next(item)) {
    runtime.step();
    runtime.charge(sizeof(Value));
    rest.push_back(item);
  }
  std::reverse(rest.begin(), rest.end());
  rest.insert(rest.end(), loop.ahead.begin(), loop.ahead.end());
  loop.ahead = std::move(rest);
  return loop.length = static_cast<int64_t>(loop.ahead.size()) + loop.index0 + 1;
}

// In a recursive loop, `env` is the activation of this level.
Interpreter::Flow Interpreter::exec_for(const Stmt& stmt, const Environment& env, const Value& iterable, int depth0,
                                        Output& out) {
  IteratorP source = iterate(runtime, iterable);
  if (stmt.test) source = filtered(stmt, env, std::move(source));
  LoopGuard guard{*this, nullptr};
  if (stmt.loop_slot.index >= 0) {
    runtime.charge(sizeof(Loop));
    guard.loop = std::make_shared<Loop>();
    guard.loop->interpreter = this;
    guard.loop->source = source;
    if (!stmt.test) guard.loop->iterable = std::make_unique<Value>(iterable);
    guard.loop->depth0 = depth0;
    if (stmt.recursive) {
      guard.loop->recurse = [this, &stmt, context = env.context, parent = env.activation->parent](const Value& inner,
                                                                                                  int depth) {
        return recurse(stmt, {parent, context}, inner, depth);
      };
    }
  }
  bool completed = false;  // an iteration ran to its end; jinja2 runs the else body otherwise
  Value item;
  while (guard.loop ? loop_next(*guard.loop, item) : source->next(item)) {
    runtime.step();
    assign(stmt.targets[0], env, item);
    if (guard.loop) at(stmt.loop_slot, env) = guard.loop;
    enter(stmt.frame, env);
    const Flow flow = exec(stmt.body, env, out);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNormal) completed = true;
  }
  leave(stmt.frame, env);
  if (completed || stmt.else_body.empty()) return Flow::kNormal;
  enter(stmt.else_frame, env);
  const Flow flow = exec(stmt.else_body, env, out);
  leave(stmt.else_frame, env);
  return flow;
}

}  // namespace thimble::jinja
