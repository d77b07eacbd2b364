#include "text/jinja_symbols.h"

#include <fmt/format.h>

#include "core/error.h"

namespace thimble::jinja {

using Action = Load::Action;
using K = Expr::Kind;
using S = Stmt::Kind;

const std::string* Symbols::find(const std::string& name) const {
  for (const Symbols* at = this; at != nullptr; at = at->parent_) {
    const auto found = at->refs_.find(name);
    if (found != at->refs_.end()) return &found->second;
  }
  return nullptr;
}

void Symbols::define(const std::string& name, Origin origin) {
  const std::string identifier = fmt::format("{}_{}", level_, name);
  refs_[name] = identifier;
  loads_[identifier] = std::move(origin);
}

void Symbols::store(const std::string& name) {
  stores_.insert(name);
  if (refs_.contains(name)) return;
  const std::string* outer = parent_ != nullptr ? parent_->find(name) : nullptr;
  if (outer != nullptr) {
    define(name, {Action::kAlias, *outer});
  } else {
    define(name, {Action::kUndefined, ""});
  }
}

void Symbols::load(const std::string& name) {
  if (find(name) == nullptr) define(name, {Action::kResolve, name});
}

void Symbols::declare_parameter(const std::string& name) {
  stores_.insert(name);
  define(name, {Action::kParameter, ""});
}

void Symbols::merge_branches(const std::vector<Symbols>& branches) {
  std::set<std::string> stores;
  for (const auto& branch : branches) stores.insert(branch.stores_.begin(), branch.stores_.end());
  for (const auto& name : stores_) stores.erase(name);
  for (const auto& branch : branches) {
    for (const auto& [name, identifier] : branch.refs_) refs_[name] = identifier;
    for (const auto& [identifier, origin] : branch.loads_) loads_[identifier] = origin;
    stores_.insert(branch.stores_.begin(), branch.stores_.end());
  }
  for (const auto& name : stores) {  // set in some branches only: otherwise what it was outside
    const std::string* target = find(name);
    const std::string* outer = parent_ != nullptr ? parent_->find(name) : nullptr;
    loads_[*target] = outer != nullptr ? Origin{Action::kAlias, *outer} : Origin{Action::kResolve, name};
  }
}

std::map<std::string, std::string> Symbols::all_stores() const {
  std::map<std::string, std::string> all;
  for (const Symbols* at = this; at != nullptr; at = at->parent_) {
    for (const auto& name : at->stores_) all.emplace(name, *find(name));
  }
  return all;
}

void SymbolVisitor::visit(const Body& body) {
  for (const auto& stmt : body) visit(*stmt);
}

void SymbolVisitor::visit(const Expr* expr, bool as_parameter) {
  if (expr == nullptr) return;
  if (expr->kind == K::kName) {
    if (as_parameter) {
      symbols_.declare_parameter(expr->name);
    } else if (expr->store) {
      symbols_.store(expr->name);
    } else {
      symbols_.load(expr->name);
    }
  } else if (expr->kind == K::kNamespaceRef) {
    symbols_.load(expr->name);
  }
  for (const auto& operand : expr->operands) visit(operand.get(), as_parameter);
  for (const auto& argument : expr->arguments.positional) visit(argument.get());
  for (const auto& [name, argument] : expr->arguments.keywords) visit(argument.get());
  visit(expr->arguments.star.get());
  visit(expr->arguments.star_star.get());
}

void SymbolVisitor::visit(const Stmt& stmt) {
  switch (stmt.kind) {
    case S::kOutput:
      for (const auto& part : stmt.parts) visit(part.expr.get());
      break;
    case S::kIf:
      visit_if(stmt);
      break;
    case S::kFor:
    case S::kCallBlock:
    case S::kFilterBlock:
      visit(stmt.expr.get());
      break;
    case S::kMacro:
      symbols_.store(stmt.macro->name);
      break;
    case S::kWith:
      for (const auto& [target, value] : stmt.bindings) visit(value.get());
      break;
    case S::kSet:
      visit(stmt.expr.get());
      visit(stmt.target.get());
      break;
    case S::kSetBlock:
      visit(stmt.target.get());
      break;
    case S::kGeneration:
    case S::kBlock:
    case S::kBreak:
    case S::kContinue:
      break;
  }
}

void SymbolVisitor::visit_if(const Stmt& stmt) {
  const auto branch = [&](const auto& visit_body) {
    if ((work_ += symbols_.size()) > 50'000'000) throw Error("the template has too many variables and conditions");
    Symbols copy = symbols_;
    SymbolVisitor visitor(copy, work_);
    visit_body(visitor);
    return copy;
  };
  visit(stmt.branches[0].test.get());
  std::vector<Symbols> branches;
  branches.push_back(branch([&](SymbolVisitor& v) { v.visit(stmt.branches[0].body); }));
  branches.push_back(branch([&](SymbolVisitor& v) {
    for (size_t i = 1; i < stmt.branches.size(); ++i) {
      v.visit(stmt.branches[i].test.get());
      Symbols inner = v.symbols_;
      work_ += inner.size();
      SymbolVisitor(inner, work_).visit(stmt.branches[i].body);
      v.symbols_.merge_branches({inner});
    }
  }));
  branches.push_back(branch([&](SymbolVisitor& v) { v.visit(stmt.else_body); }));
  symbols_.merge_branches(branches);
}

void SymbolVisitor::visit_parameters(const MacroCode& macro) {
  for (const auto& name : macro.parameters) symbols_.declare_parameter(name);
  for (const auto& value : macro.defaults) visit(value.get());
  visit(macro.body);
}

namespace {
// jinja2's UndeclaredNameVisitor: goes through everything but blocks, in the order of the syntax tree's fields.
class UndeclaredNames {
 public:
  explicit UndeclaredNames(std::set<std::string> names) : names_(std::move(names)) {}
  std::set<std::string> take() { return std::move(found_); }

  void visit(const Body& body) {
    for (const auto& stmt : body) visit(*stmt);
  }

 private:
  void touch(const std::string& name, bool load) {
    if (done_) return;
    if (load && names_.contains(name)) {
      found_.insert(name);
      done_ = found_ == names_;
    } else {
      names_.erase(name);
    }
  }
  void visit(const Expr* expr, bool parameter = false) {
    if (expr == nullptr || done_) return;
    if (expr->kind == K::kName) touch(expr->name, !expr->store && !parameter);
    for (const auto& operand : expr->operands) visit(operand.get(), parameter);
    for (const auto& argument : expr->arguments.positional) visit(argument.get());
    for (const auto& [name, argument] : expr->arguments.keywords) visit(argument.get());
    visit(expr->arguments.star.get());
    visit(expr->arguments.star_star.get());
  }
  void visit(const MacroCode& macro) {
    for (const auto& name : macro.parameters) touch(name, false);
    for (const auto& value : macro.defaults) visit(value.get());
    visit(macro.body);
  }
  void visit(const Stmt& stmt) {
    if (done_ || stmt.kind == S::kBlock) return;
    for (const auto& part : stmt.parts) visit(part.expr.get());
    for (const auto& branch : stmt.branches) {
      visit(branch.test.get());
      visit(branch.body);
    }
    for (const auto& [target, value] : stmt.bindings) visit(target.get(), true);
    for (const auto& [target, value] : stmt.bindings) visit(value.get());
    if (stmt.kind == S::kFilterBlock) {
      visit(stmt.body);
      visit(stmt.expr.get());
      return;
    }
    visit(stmt.target.get());
    visit(stmt.expr.get());
    if (stmt.macro) visit(*stmt.macro);
    visit(stmt.body);
    visit(stmt.else_body);
    visit(stmt.test.get());
  }

  std::set<std::string> names_;
  std::set<std::string> found_;
  bool done_ = false;
};

bool assigns(const Expr* target, std::string_view name) {
  if (target == nullptr) return false;
  if (target->kind == K::kName) return target->store && target->name == name;
  for (const auto& item : target->operands) {
    if (assigns(item.get(), name)) return true;
  }
  return false;
}

bool assigns(const Body& body, std::string_view name) {
  for (const auto& stmt : body) {
    if (assigns(*stmt, name)) return true;
  }
  return false;
}
}  // namespace

std::set<std::string> find_undeclared(const Body& body, std::set<std::string> names) {
  UndeclaredNames visitor(std::move(names));
  visitor.visit(body);
  return visitor.take();
}

bool assigns(const Stmt& stmt, std::string_view name) {
  if (assigns(stmt.target.get(), name) || assigns(stmt.body, name) || assigns(stmt.else_body, name)) return true;
  if (stmt.macro && assigns(stmt.macro->body, name)) return true;
  for (const auto& branch : stmt.branches) {
    if (assigns(branch.body, name)) return true;
  }
  return false;
}

}  // namespace thimble::jinja
