#include "text/jinja_scopes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "text/jinja_builtins.h"
#include "text/jinja_lexer.h"
#include "text/jinja_symbols.h"

namespace thimble::jinja {

namespace {
using K = Expr::Kind;
using S = Stmt::Kind;

// One Python function: identifiers get slots where they are first assigned.
struct Scope {
  explicit Scope(const Scope* parent) : parent(parent) {}
  int define(const std::string& identifier) {
    return slots.emplace(identifier, static_cast<int>(slots.size())).first->second;
  }
  Slot find(const std::string& identifier) const {
    int hops = 0;
    for (const Scope* at = this; at != nullptr; at = at->parent, ++hops) {
      const auto found = at->slots.find(identifier);
      if (found != at->slots.end()) return {hops, found->second};
    }
    return {0, -1};
  }
  const Scope* parent;
  std::map<std::string, int> slots;
};

// Where code stands (jinja2.compiler.Frame).
struct Frame {
  const Symbols* symbols;
  Scope* scope;
  bool toplevel = false;  // sets are seen by blocks and exported
  bool soft = false;      // inside a condition: an unknown filter fails only if it is reached
  bool in_loop = false;   // `break` has a loop

  Frame inner(const Symbols& inner_symbols) const { return {&inner_symbols, scope, false, false, in_loop}; }
  Frame condition() const { return {symbols, scope, toplevel, true, in_loop}; }
};

class Resolver {
 public:
  Resolved run(Body& body) {
    check_self(body);
    Symbols symbols(nullptr);
    SymbolVisitor(symbols, work_).visit(body);
    Scope scope(nullptr);
    result_.frame = enter(symbols, scope);
    visit(body, Frame{&symbols, &scope, true});
    result_.slots = static_cast<int>(scope.slots.size());
    return std::move(result_);
  }

 private:
  FrameCode enter(const Symbols& symbols, Scope& scope) {
    FrameCode frame;
    for (const auto& [identifier, origin] : symbols.loads()) {
      Load load{origin.action, scope.define(identifier), "", {}};
      if (origin.action == Load::Action::kResolve) {
        load.name = origin.from;
        result_.context_names.insert(origin.from);
      }
      frame.loads.push_back(std::move(load));
    }
    size_t i = 0;
    for (const auto& [identifier, origin] : symbols.loads()) {
      if (origin.action == Load::Action::kAlias) frame.loads[i].source = scope.find(origin.from);
      ++i;
    }
    return frame;
  }

  Slot slot_of(const std::string& name, const Frame& frame) const {
    return frame.scope->find(*frame.symbols->find(name));
  }

  Target target(const Expr& expr, const Symbols& symbols, Scope& scope) const {
    Target result;
    if (expr.kind == K::kTuple) {
      result.kind = Target::Kind::kTuple;
      for (const auto& item : expr.operands) result.items.push_back(target(*item, symbols, scope));
      return result;
    }
    result.slot = scope.find(*symbols.find(expr.name));
    if (expr.kind == K::kNamespaceRef) {
      result.kind = Target::Kind::kAttribute;
      result.name = expr.attribute;
    }
    return result;
  }

  static void names_of(const Expr& target, K kind, std::vector<std::string>& out) {
    if (target.kind == kind && kind != K::kTuple) {
      if (std::find(out.begin(), out.end(), target.name) == out.end()) out.push_back(target.name);
    }
    for (const auto& item : target.operands) names_of(*item, kind, out);
  }

  void visit(CallArguments& arguments, const Frame& frame) {
    for (auto& argument : arguments.positional) visit(argument.get(), frame);
    for (auto& [name, argument] : arguments.keywords) visit(argument.get(), frame);
    visit(arguments.star.get(), frame);
    visit(arguments.star_star.get(), frame);
  }

  void visit(Expr* expr, const Frame& outer) {
    if (expr == nullptr) return;
    const Frame frame = expr->kind == K::kConditional ? outer.condition() : outer;
    if (expr->kind == K::kName) expr->slot = slot_of(expr->name, frame);
    if (expr->kind == K::kFilter || expr->kind == K::kTest) {
      const bool filter = expr->kind == K::kFilter;
      expr->builtin = filter ? find_filter(expr->name) : find_test(expr->name);
      if (expr->builtin == nullptr && !frame.soft) {
        fail_syntax(expr->line, fmt::format("No {} named '{}'.", filter ? "filter" : "test", expr->name));
      }
    }
    for (auto& operand : expr->operands) visit(operand.get(), frame);
    visit(expr->arguments, frame);
  }

  void visit(Body& body, const Frame& frame) {
    for (auto& stmt : body) visit(*stmt, frame);
  }

  void visit(Stmt& stmt, const Frame& frame) {
    switch (stmt.kind) {
      case S::kOutput:
        for (auto& part : stmt.parts) visit(part.expr.get(), frame);
        break;
      case S::kIf: {
        const Frame condition = frame.condition();
        for (auto& branch : stmt.branches) {
          visit(branch.test.get(), condition);
          visit(branch.body, condition);
        }
        visit(stmt.else_body, condition);
        break;
      }
      case S::kFor:
        visit_for(stmt, frame);
        break;
      case S::kMacro:
        visit_macro(*stmt.macro, frame);
        stmt.slot = slot_of(stmt.macro->name, frame);
        if (frame.toplevel) stmt.exports.emplace_back(stmt.macro->name, stmt.slot);
        break;
      case S::kCallBlock:
        visit_macro(*stmt.macro, frame);
        visit(stmt.expr.get(), frame);
        break;
      case S::kGeneration:
        result_.has_generation = true;
        visit_macro(*stmt.macro, frame);
        break;
      case S::kFilterBlock: {
        Symbols symbols(frame.symbols);
        SymbolVisitor visitor(symbols, work_);
        visitor.visit(stmt.body);
        visitor.visit(stmt.expr.get());
        stmt.frame = enter(symbols, *frame.scope);
        visit(stmt.body, frame.inner(symbols));
        visit(stmt.expr.get(), frame.inner(symbols));
        break;
      }
      case S::kWith:
        visit_with(stmt, frame);
        break;
      case S::kBlock:
        visit_block(stmt, frame);
        break;
      case S::kSet:
        visit(stmt.expr.get(), frame);
        assign(stmt, frame);
        break;
      case S::kSetBlock: {
        Symbols symbols(frame.symbols);
        SymbolVisitor(symbols, work_).visit(stmt.body);
        stmt.frame = enter(symbols, *frame.scope);
        const Frame inner = frame.inner(symbols);
        visit(stmt.body, inner);
        // The filter is not part of the analysed body in jinja2 either: a name that only it uses has no reference.
        if (stmt.expr) visit_set_filter(*stmt.expr, inner);
        assign(stmt, frame);
        break;
      }
      case S::kBreak:
      case S::kContinue:
        if (!frame.in_loop) {
          fail_syntax(stmt.line, stmt.kind == S::kBreak ? "'break' outside loop" : "'continue' not properly in loop");
        }
        break;
    }
  }

  void visit_set_filter(Expr& filter, const Frame& frame) {
    check_known(filter, frame);
    visit(&filter, frame);
  }

  static void check_known(const Expr& expr, const Frame& frame) {
    if (expr.kind == K::kName && frame.symbols->find(expr.name) == nullptr) {
      fail_syntax(expr.line, fmt::format("'{}' can't be used in the filter of a set block; set it before", expr.name));
    }
    for (const auto& operand : expr.operands) {
      if (operand) check_known(*operand, frame);
    }
    for (const auto& argument : expr.arguments.positional) check_known(*argument, frame);
    for (const auto& [name, argument] : expr.arguments.keywords) check_known(*argument, frame);
    if (expr.arguments.star) check_known(*expr.arguments.star, frame);
    if (expr.arguments.star_star) check_known(*expr.arguments.star_star, frame);
  }

  void assign(Stmt& stmt, const Frame& frame) {
    stmt.targets.push_back(target(*stmt.target, *frame.symbols, *frame.scope));
    std::vector<std::string> names;
    names_of(*stmt.target, K::kNamespaceRef, names);
    for (const auto& name : names) stmt.namespaces.push_back(slot_of(name, frame));
    if (!frame.toplevel) return;
    names.clear();
    names_of(*stmt.target, K::kName, names);
    for (const auto& name : names) stmt.exports.emplace_back(name, slot_of(name, frame));
  }

  void visit_for(Stmt& stmt, const Frame& frame) {
    if (assigns(stmt, "loop")) fail_syntax(stmt.line, "Can't assign to special loop variable in for-loop target");
    visit(stmt.expr.get(), frame);

    Scope own(frame.scope);  // only of a recursive loop, which is a function
    Scope& scope = stmt.recursive ? own : *frame.scope;
    const bool extended = stmt.recursive || find_undeclared(stmt.body, {"loop"}).contains("loop") || has_scoped(stmt);
    Symbols body_symbols(frame.symbols);
    if (extended) body_symbols.declare_parameter("loop");
    SymbolVisitor body_visitor(body_symbols, work_);
    body_visitor.visit(stmt.target.get(), true);
    body_visitor.visit(stmt.body);

    Symbols test_symbols(frame.symbols);
    if (stmt.test) {
      Scope test_scope(&scope);
      SymbolVisitor test_visitor(test_symbols, work_);
      test_visitor.visit(stmt.target.get(), true);
      test_visitor.visit(stmt.test.get());
      stmt.test_frame = enter(test_symbols, test_scope);
      stmt.test_target = target(*stmt.target, test_symbols, test_scope);
      visit(stmt.test.get(), Frame{&test_symbols, &test_scope});
      stmt.test_slots = static_cast<int>(test_scope.slots.size());
    }

    stmt.frame = enter(body_symbols, scope);
    stmt.targets.push_back(target(*stmt.target, body_symbols, scope));
    if (extended) stmt.loop_slot = scope.find(*body_symbols.find("loop"));
    visit(stmt.body, Frame{&body_symbols, &scope, false, false, true});
    if (!stmt.else_body.empty()) {
      Symbols else_symbols(frame.symbols);
      SymbolVisitor(else_symbols, work_).visit(stmt.else_body);
      stmt.else_frame = enter(else_symbols, scope);
      visit(stmt.else_body, Frame{&else_symbols, &scope, false, false, frame.in_loop && !stmt.recursive});
    }
    if (stmt.recursive) stmt.slots = static_cast<int>(own.slots.size());
  }

  static void check_self(const Body& body) {
    if (!find_undeclared(body, {"self"}).empty()) {
      fail_syntax(body.empty() ? 1 : body[0]->line, "'self' is refused: it is for templates that extend others");
    }
  }

  static bool has_scoped(const Body& body) {
    return std::any_of(body.begin(), body.end(), [](const StmtP& s) { return has_scoped(*s); });
  }
  static bool has_scoped(const Stmt& stmt) {
    if (stmt.kind == S::kBlock && stmt.scoped) return true;
    if (has_scoped(stmt.body) || has_scoped(stmt.else_body)) return true;
    if (stmt.macro && has_scoped(stmt.macro->body)) return true;
    return std::any_of(stmt.branches.begin(), stmt.branches.end(), [](const auto& b) { return has_scoped(b.body); });
  }

  void visit_macro(MacroCode& macro, const Frame& frame) {
    Symbols symbols(frame.symbols);
    SymbolVisitor visitor(symbols, work_);
    visitor.visit_parameters(macro);
    const auto has = [&](const char* name) {
      return std::find(macro.parameters.begin(), macro.parameters.end(), name) != macro.parameters.end();
    };
    const auto special = find_undeclared(macro.body, {"caller", "kwargs", "varargs"});
    const bool caller = special.contains("caller") && !has("caller");
    if (special.contains("caller") && has("caller")) {
      macro.explicit_caller = true;
      const size_t first_default = macro.parameters.size() - macro.defaults.size();
      const auto at = std::find(macro.parameters.begin(), macro.parameters.end(), "caller") - macro.parameters.begin();
      if (static_cast<size_t>(at) < first_default) {
        fail_syntax(macro.line, "the special \"caller\" argument must be omitted or be given a default");
      }
    }
    if (caller) symbols.declare_parameter("caller");
    const bool kwargs = special.contains("kwargs") && !has("kwargs");
    if (kwargs) symbols.declare_parameter("kwargs");
    const bool varargs = special.contains("varargs") && !has("varargs");
    if (varargs) symbols.declare_parameter("varargs");
    visitor.visit_parameters(macro);

    Scope scope(frame.scope);
    macro.frame = enter(symbols, scope);
    const auto parameter = [&](const std::string& name) { return scope.find(*symbols.find(name)).index; };
    for (const auto& name : macro.parameters) macro.parameter_slots.push_back(parameter(name));
    if (caller) macro.caller_slot = parameter("caller");
    if (kwargs) macro.kwargs_slot = parameter("kwargs");
    if (varargs) macro.varargs_slot = parameter("varargs");
    const Frame inner{&symbols, &scope};
    for (auto& value : macro.defaults) visit(value.get(), inner);
    visit(macro.body, inner);
    macro.slots = static_cast<int>(scope.slots.size());
  }

  void visit_with(Stmt& stmt, const Frame& frame) {
    for (auto& [name, value] : stmt.bindings) visit(value.get(), frame);
    Symbols symbols(frame.symbols);
    SymbolVisitor visitor(symbols, work_);
    for (const auto& [name, value] : stmt.bindings) visitor.visit(name.get(), true);
    visitor.visit(stmt.body);
    stmt.frame = enter(symbols, *frame.scope);
    for (const auto& [name, value] : stmt.bindings) stmt.targets.push_back(target(*name, symbols, *frame.scope));
    visit(stmt.body, frame.inner(symbols));
  }

  void visit_block(Stmt& stmt, const Frame& frame) {
    if (!blocks_.insert(stmt.name).second) fail_syntax(stmt.line, fmt::format("block '{}' defined twice", stmt.name));
    if (stmt.required) fail_syntax(stmt.line, "a required block needs a child template, and chat templates have none");
    if (stmt.scoped) {
      for (const auto& [name, identifier] : frame.symbols->all_stores()) {
        stmt.exports.emplace_back(name, frame.scope->find(identifier));
      }
    }
    check_self(stmt.body);
    if (!find_undeclared(stmt.body, {"super"}).empty()) {
      fail_syntax(stmt.line, "'super' is refused: chat templates have no parent template");
    }
    Symbols symbols(nullptr);
    SymbolVisitor(symbols, work_).visit(stmt.body);
    Scope scope(nullptr);
    stmt.frame = enter(symbols, scope);
    visit(stmt.body, Frame{&symbols, &scope});
    stmt.slots = static_cast<int>(scope.slots.size());
  }

  Resolved result_;
  std::set<std::string> blocks_;
  size_t work_ = 0;
};
}  // namespace

Resolved resolve(Body& body) { return Resolver().run(body); }

}  // namespace thimble::jinja
