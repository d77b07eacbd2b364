#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"

namespace thimble::jinja {

// The names of one block (jinja2.idtracking.Symbols): what each refers to, and how it gets its first value.
class Symbols {
 public:
  struct Origin {
    Load::Action action;
    std::string from;  // kResolve: the name; kAlias: the outer identifier
  };

  explicit Symbols(const Symbols* parent) : level_(parent ? parent->level_ + 1 : 0), parent_(parent) {}

  const std::string* find(const std::string& name) const;  // its identifier, here or further out
  void store(const std::string& name);
  void load(const std::string& name);
  void declare_parameter(const std::string& name);
  void merge_branches(const std::vector<Symbols>& branches);

  const std::map<std::string, Origin>& loads() const { return loads_; }  // by identifier
  std::map<std::string, std::string> all_stores() const;                 // name -> identifier, of every level
  size_t size() const { return refs_.size(); }

 private:
  void define(const std::string& name, Origin origin);

  int level_;
  const Symbols* parent_;
  std::map<std::string, std::string> refs_;
  std::map<std::string, Origin> loads_;
  std::set<std::string> stores_;
};

// Which names a block's statements use and set, without the insides of inner blocks.
class SymbolVisitor {
 public:
  SymbolVisitor(Symbols& symbols, size_t& work) : symbols_(symbols), work_(work) {}

  void visit(const Body& body);
  void visit(const Stmt& stmt);
  void visit(const Expr* expr, bool as_parameter = false);
  void visit_parameters(const MacroCode& macro);  // and the defaults, and the body

 private:
  void visit_if(const Stmt& stmt);

  Symbols& symbols_;
  size_t& work_;  // bounds what a forged template costs
};

// The first of `names` (and all of them, in `found`) that is read before it is set somewhere in the statements.
std::set<std::string> find_undeclared(const Body& body, std::set<std::string> names);
bool assigns(const Stmt& stmt, std::string_view name);

}  // namespace thimble::jinja
