#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "text/jinja_macro.h"
#include "text/jinja_scopes.h"
#include "text/jinja_value.h"

namespace thimble::jinja {

// The variables that a template is given, and those that its top level exports (jinja2.runtime.Context).
class Context {
 public:
  explicit Context(const Context* base = nullptr) : base_(base) {}
  void set(const std::string& name, Value value) { values_[name] = std::move(value); }
  const Value* find(const std::string& name) const {
    for (const Context* at = this; at != nullptr; at = at->base_) {
      if (const auto found = at->values_.find(name); found != at->values_.end()) return &found->second;
    }
    return nullptr;
  }
  void clear() { values_.clear(); }

 private:
  const Context* base_;
  std::unordered_map<std::string, Value> values_;
};

// Where text goes: the rendering itself, or the buffer of a macro or block.
struct Output {
  std::string text;
  bool top = false;
};

struct Environment {
  std::shared_ptr<Activation> activation;
  Context* context;
};

// Runs a resolved template once.
class Interpreter {
 public:
  Interpreter(const RenderOptions& options, bool mark) : runtime(options), mark_(mark) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Throws Failure; line() then says where.
  RenderResult run(const Body& body, const Resolved& resolved, const nlohmann::ordered_json& context);
  int line() const { return line_; }

  Value call(const Value& callee, Arguments& arguments);
  Value getattr(const Value& object, const std::string& name);  // object.name, else object['name'], else undefined
  Value getitem(const Value& object, const Value& index);       // object[index], else the attribute, else undefined
  Value call_filter(const Value& name, const Value& self, Arguments& arguments);
  bool call_test(const Value& name, const Value& self, Arguments& arguments);
  NamespaceP make_namespace();

  Runtime runtime;

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  struct ActivationGuard;
  struct LoopGuard;

  // statements (jinja_statements.cpp)
  Flow exec(const Body& body, const Environment& env, Output& out);
  Flow exec(const Stmt& stmt, const Environment& env, Output& out);
  Flow exec_if(const Stmt& stmt, const Environment& env, Output& out);
  Flow exec_for(const Stmt& stmt, const Environment& env, const Value& iterable, int depth0, Output& out);
  Flow exec_buffered(const Stmt& stmt, const Environment& env, Output& out);  // kSetBlock, kFilterBlock
  Flow exec_with(const Stmt& stmt, const Environment& env, Output& out);
  Value recurse(const Stmt& stmt, const Environment& env, const Value& iterable, int depth0);
  void exec_block(const Stmt& stmt, const Environment& env, Output& out);
  void exec_generation(const Stmt& stmt, const Environment& env, Output& out);
  IteratorP filtered(const Stmt& stmt, const Environment& env, IteratorP source);
  void write(Output& out, std::string_view text);
  void write_text(Output& out, const Value& value);
  void enter(const FrameCode& frame, const Environment& env);
  void leave(const FrameCode& frame, const Environment& env);
  void assign(const Target& target, const Environment& env, const Value& value);
  void export_names(const Stmt& stmt, const Environment& env);
  static Value& at(const Slot& slot, const Environment& env);

  // expressions (jinja_interpreter.cpp)
  Value eval(const Expr& expr, const Environment& env);
  Value eval_call(const Expr& expr, const Environment& env, const Value* caller);
  Value eval_compare(const Expr& expr, const Environment& env);
  Value eval_filter(const Expr& expr, const Environment& env, const Value& input);
  Value eval_dict(const Expr& expr, const Environment& env);
  std::vector<Value> eval_all(const std::vector<ExprP>& exprs, const Environment& env);
  Arguments eval_arguments(const CallArguments& arguments, const Environment& env);
  Value call_macro(const Macro& macro, Arguments& arguments);

  int line_ = 1;
  bool mark_;
  int inside_generation_ = 0;
  std::vector<Span> generated_;
  // What may hold each other in circles is kept here, and emptied at the end.
  std::vector<std::shared_ptr<Activation>> escaped_activations_;
  std::vector<LoopP> escaped_loops_;
  std::vector<NamespaceP> namespaces_;
  std::vector<std::unique_ptr<Context>> contexts_;
};

// An activation that a macro or loop still holds when its function returns is kept until the end: whatever holds
// whom, it is then emptied one by one, without recursion.
struct Interpreter::ActivationGuard {
  ActivationGuard(Interpreter& interpreter, std::shared_ptr<Activation> activation)
      : interpreter(interpreter), activation(std::move(activation)) {}
  ~ActivationGuard() {
    if (activation.use_count() > 1) interpreter.escaped_activations_.push_back(std::move(activation));
  }
  Interpreter& interpreter;
  std::shared_ptr<Activation> activation;
};
struct Interpreter::LoopGuard {
  ~LoopGuard() {
    if (loop && loop.use_count() > 1) interpreter.escaped_loops_.push_back(std::move(loop));
  }
  Interpreter& interpreter;
  LoopP loop;
};

bool loop_next(Loop& loop, Value& item);

}  // namespace thimble::jinja
