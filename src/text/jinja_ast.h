#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

// The template as a tree. The parser makes it; the resolver (jinja_scopes.cpp) then fills in the slots, frames and
// function sizes; the interpreter walks it.
namespace thimble::jinja {

struct Expr;
struct Stmt;
using ExprP = std::unique_ptr<Expr>;
using StmtP = std::unique_ptr<Stmt>;
using Body = std::vector<StmtP>;

// A variable: `hops` functions outwards, then the slot.
struct Slot {
  int hops = 0;
  int index = -1;
};

using Builtin = Value (*)(Interpreter&, const Value& self, Arguments& arguments);

struct CallArguments {
  std::vector<ExprP> positional;
  std::vector<std::pair<std::string, ExprP>> keywords;
  ExprP star, star_star;  // *args, **kwargs; null where not given
};

struct Expr {
  enum class Kind {
    kConst,
    kName,
    kNamespaceRef,
    kTuple,
    kList,
    kDict,
    kBinary,
    kUnary,
    kNot,
    kAnd,
    kOr,
    kConcat,
    kCompare,
    kGetattr,
    kGetitem,
    kSlice,
    kCall,
    kFilter,
    kTest,
    kConditional
  };
  enum class Op { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow, kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

  Kind kind;
  int line;
  int depth = 1;
  Value value;            // kConst
  std::string name;       // kName, kGetattr, kFilter, kTest; kNamespaceRef: the namespace
  std::string attribute;  // kNamespaceRef
  // kTuple, kList, kConcat, kAnd, kOr, kBinary: operands. kDict: key, value, key, value ... kCompare: first operand,
  // then one for each op. kGetitem: object, index. kSlice: start, stop, step, each may be null. kConditional: test,
  // then, else (may be null). kUnary (kSub or kAdd), kNot, kGetattr, kCall, kTest: one. kFilter: one, null in a
  // filter block.
  std::vector<ExprP> operands;
  std::vector<Op> ops;      // kBinary, kUnary: one; kCompare: one for each operand after the first
  CallArguments arguments;  // kCall, kFilter, kTest
  bool store = false;       // kName, kTuple: an assignment's target
  // filled in by the resolver
  Slot slot;                  // kName, kNamespaceRef
  Builtin builtin = nullptr;  // kFilter, kTest; null for an unknown one that only runs if a condition says so
};

// What happens to variables where a block begins (Frame in jinja2's compiler).
struct Load {
  enum class Action { kResolve, kAlias, kUndefined, kParameter } action;
  int slot;
  std::string name;  // kResolve: looked up in the context
  Slot source;       // kAlias
};
struct FrameCode {
  std::vector<Load> loads;
};

// An assignment's target, resolved: a name, a namespace's attribute, or a tuple of targets.
struct Target {
  enum class Kind { kName, kAttribute, kTuple } kind = Kind::kName;
  std::string name;  // kAttribute: of the attribute
  Slot slot;
  std::vector<Target> items;
};

struct MacroCode {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExprP> defaults;  // of the last parameters
  Body body;
  int line = 0;
  // filled in by the resolver
  FrameCode frame;
  int slots = 0;
  std::vector<int> parameter_slots;
  int caller_slot = -1, kwargs_slot = -1, varargs_slot = -1;  // -1 where the body does not use it
  bool explicit_caller = false;
};

struct Stmt {
  enum class Kind {
    kOutput,
    kIf,
    kFor,
    kMacro,
    kCallBlock,
    kGeneration,
    kFilterBlock,
    kWith,
    kBlock,
    kSet,
    kSetBlock,
    kBreak,
    kContinue
  };
  struct Part {  // of kOutput: either text or an expression
    std::string text;
    ExprP expr;
  };
  struct Branch {
    ExprP test;
    Body body;
  };

  Kind kind;
  int line;
  std::vector<Part> parts;
  std::vector<Branch> branches;  // kIf: if and elifs
  Body body;
  Body else_body;  // kIf, kFor
  ExprP target;    // kFor, kSet, kSetBlock, as parsed
  ExprP expr;      // kFor: the iterable; kSet: the value; kCallBlock: the call; kFilterBlock, kSetBlock: filters
  ExprP test;      // kFor: the `if`
  bool recursive = false;                         // kFor
  bool scoped = false, required = false;          // kBlock
  std::string name;                               // kBlock
  std::vector<std::pair<ExprP, ExprP>> bindings;  // kWith: target, value
  std::unique_ptr<MacroCode> macro;               // kMacro, kCallBlock, kGeneration
  // filled in by the resolver
  FrameCode frame;       // of the body: kFor, kFilterBlock, kWith, kSetBlock, kBlock
  FrameCode else_frame;  // kFor
  FrameCode test_frame;  // kFor: the filter is a function of its own
  int test_slots = 0;
  Target test_target;
  std::vector<Target> targets;   // kFor, kSet, kSetBlock: one; kWith: one for each binding
  std::vector<Slot> namespaces;  // kSet: must be namespaces before the value is evaluated
  std::vector<std::pair<std::string, Slot>>
      exports;     // kSet, kSetBlock, kMacro at top level; kBlock, scoped: what it sees
  Slot slot;       // kMacro: where it goes
  Slot loop_slot;  // kFor: `loop`, index -1 where nothing uses it
  int slots = 0;   // kBlock, recursive kFor: size of its function
};

}  // namespace thimble::jinja
