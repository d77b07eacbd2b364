#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include <fmt/format.h>

#include "text/jinja_parser.h"

namespace thimble::jinja {

namespace {
using Kind = Token::Kind;
using K = Expr::Kind;
using Op = Expr::Op;

bool is_constant_name(const std::string& name) {
  return name == "true" || name == "false" || name == "True" || name == "False" || name == "none" || name == "None";
}

Value constant_text(std::string utf8) {
  size_t length = 0;
  for (const char c : utf8) length += (c & 0xC0) != 0x80;
  return std::make_shared<const Text>(Text{std::move(utf8), length, false});
}
}  // namespace

void Parser::deepen(Expr& expr, const ExprP& child) const {
  if (child == nullptr) return;
  expr.depth = std::max(expr.depth, child->depth + 1);
  if (expr.depth > kMaxSyntaxDepth) fail("the expression is nested too deep");
}

ExprP Parser::make(K kind, int line, std::vector<ExprP> operands) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  for (const auto& operand : operands) deepen(*expr, operand);
  expr->operands = std::move(operands);
  return expr;
}

ExprP Parser::make(K kind, int line, ExprP a, ExprP b, ExprP c) {
  std::vector<ExprP> operands;
  operands.push_back(std::move(a));
  if (b || c) operands.push_back(std::move(b));
  if (c) operands.push_back(std::move(c));
  return make(kind, line, std::move(operands));
}

std::string Parser::parse_target_name() {
  const std::string name = expect_any_name();
  if (is_constant_name(name)) fail(fmt::format("can't assign to '{}'", name));
  return name;
}

ExprP Parser::parse_assign_target(bool with_namespace, Ends ends) {
  ExprP target = parse_tuple(true, true, ends, false, with_namespace);
  mark_store(*target);
  return target;
}

void Parser::mark_store(Expr& target) {
  switch (target.kind) {
    case K::kName:
      target.store = true;
      return;
    case K::kNamespaceRef:
      return;
    case K::kTuple:
      target.store = true;
      for (auto& item : target.operands) mark_store(*item);
      return;
    default:
      fail_syntax(target.line, "can't assign to this expression");
  }
}

ExprP Parser::parse_expression(bool with_condition) {
  const Nesting nesting(*this);
  return with_condition ? parse_condition() : parse_or();
}

ExprP Parser::parse_condition() {
  const int line = current().line;
  ExprP value = parse_or();
  while (skip_name("if")) {
    ExprP test = parse_or();
    ExprP otherwise;
    if (skip_name("else")) {
      const Nesting nesting(*this);
      otherwise = parse_condition();
    }
    std::vector<ExprP> operands;
    operands.push_back(std::move(test));
    operands.push_back(std::move(value));
    operands.push_back(std::move(otherwise));
    value = make(K::kConditional, line, std::move(operands));
  }
  return value;
}

ExprP Parser::parse_or() {
  const int line = current().line;
  ExprP left = parse_and();
  while (skip_name("or")) left = make(K::kOr, line, std::move(left), parse_and());
  return left;
}

ExprP Parser::parse_and() {
  const int line = current().line;
  ExprP left = parse_not();
  while (skip_name("and")) left = make(K::kAnd, line, std::move(left), parse_not());
  return left;
}

ExprP Parser::parse_not() {
  if (!is_name("not")) return parse_compare();
  const Nesting nesting(*this);
  const int line = next().line;
  return make(K::kNot, line, parse_not());
}

ExprP Parser::parse_compare() {
  const int line = current().line;
  std::vector<ExprP> operands;
  std::vector<Op> ops;
  operands.push_back(parse_sum());
  static constexpr std::pair<std::string_view, Op> kComparisons[] = {{"==", Op::kEq}, {"!=", Op::kNe}, {"<", Op::kLt},
                                                                     {"<=", Op::kLe}, {">", Op::kGt},  {">=", Op::kGe}};
  while (true) {
    const auto* found = std::find_if(std::begin(kComparisons), std::end(kComparisons),
                                     [&](const auto& c) { return is_operator(c.first); });
    if (found != std::end(kComparisons)) {
      next();
      ops.push_back(found->second);
    } else if (skip_name("in")) {
      ops.push_back(Op::kIn);
    } else if (is_name("not") && is_name(look(), "in")) {
      next();
      next();
      ops.push_back(Op::kNotIn);
    } else {
      break;
    }
    operands.push_back(parse_sum());
  }
  if (ops.empty()) return std::move(operands[0]);
  ExprP expr = make(K::kCompare, line, std::move(operands));
  expr->ops = std::move(ops);
  return expr;
}

ExprP Parser::parse_sum() {
  const int line = current().line;
  ExprP left = parse_concat();
  while (is_operator("+") || is_operator("-")) {
    const Op op = next().text == "+" ? Op::kAdd : Op::kSub;
    left = make(K::kBinary, line, std::move(left), parse_concat());
    left->ops = {op};
  }
  return left;
}

ExprP Parser::parse_concat() {
  const int line = current().line;
  std::vector<ExprP> parts;
  parts.push_back(parse_product());
  while (skip_operator("~")) parts.push_back(parse_product());
  if (parts.size() == 1) return std::move(parts[0]);
  return make(K::kConcat, line, std::move(parts));
}

ExprP Parser::parse_product() {
  const int line = current().line;
  ExprP left = parse_power();
  static constexpr std::pair<std::string_view, Op> kProducts[] = {
      {"*", Op::kMul}, {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}};
  while (true) {
    const auto* found = std::find_if(std::begin(kProducts), std::end(kProducts),
                                     [&](const auto& p) { return is_operator(p.first); });
    if (found == std::end(kProducts)) return left;
    next();
    left = make(K::kBinary, line, std::move(left), parse_power());
    left->ops = {found->second};
  }
}

ExprP Parser::parse_power() {
  const int line = current().line;
  ExprP left = parse_unary();
  while (skip_operator("**")) {
    left = make(K::kBinary, line, std::move(left), parse_unary());
    left->ops = {Op::kPow};
  }
  return left;
}

ExprP Parser::parse_unary(bool with_filter) {
  const int line = current().line;
  ExprP node;
  if (is_operator("-") || is_operator("+")) {
    const Nesting nesting(*this);
    const Op op = next().text == "-" ? Op::kSub : Op::kAdd;
    node = make(K::kUnary, line, parse_unary(false));
    node->ops = {op};
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filter_expr(std::move(node)) : std::move(node);
}

ExprP Parser::parse_primary(bool with_namespace) {
  const Token token = current();
  switch (token.kind) {
    case Kind::kName: {
      next();
      if (is_constant_name(token.text)) {
        ExprP expr = make(K::kConst, token.line);
        const char first = static_cast<char>(token.text[0] | 32);
        expr->value = first == 'n' ? Value(None{}) : Value(first == 't');
        return expr;
      }
      ExprP expr = make(K::kName, token.line);
      expr->name = token.text;
      if (with_namespace && skip_operator(".")) {
        expr->kind = K::kNamespaceRef;
        expr->attribute = expect_any_name();
      }
      return expr;
    }
    case Kind::kString: {
      std::string text;
      while (current().kind == Kind::kString) text += next().text;
      ExprP expr = make(K::kConst, token.line);
      expr->value = constant_text(std::move(text));
      return expr;
    }
    case Kind::kInteger: {
      next();
      ExprP expr = make(K::kConst, token.line);
      const bool prefixed = token.text.size() > 1 && std::isalpha(static_cast<unsigned char>(token.text[1]));
      const char mark = prefixed ? static_cast<char>(token.text[1] | 32) : '\0';
      const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      unsigned __int128 value = 0;
      for (const char c : token.text.substr(prefixed ? 2 : 0)) {
        if (value >> 122 != 0) fail("the integer is too large");
        value = value * static_cast<unsigned>(base) + static_cast<unsigned>(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
      }
      expr->value = static_cast<Int>(value);
      return expr;
    }
    case Kind::kFloat: {
      next();
      ExprP expr = make(K::kConst, token.line);
      expr->value = Value(std::strtod(token.text.c_str(), nullptr));
      return expr;
    }
    default:
      break;
  }
  if (is_operator("(")) {
    const Nesting nesting(*this);
    next();
    ExprP expr = parse_tuple(false, true, {}, true);
    expect_operator(")");
    return expr;
  }
  if (is_operator("[")) return parse_list();
  if (is_operator("{")) return parse_dict();
  fail(fmt::format("unexpected '{}'", token.kind == Kind::kOperator ? token.text : "end of the tag"));
}

ExprP Parser::parse_tuple(bool simplified, bool with_condition, Ends ends, bool parentheses, bool with_namespace) {
  const int line = current().line;
  std::vector<ExprP> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    const bool ended = current().kind == Kind::kVariableEnd || current().kind == Kind::kBlockEnd || is_operator(")") ||
                       (current().kind == Kind::kName &&
                        std::find(ends.begin(), ends.end(), current().text) != ends.end());
    if (ended) break;
    items.push_back(simplified ? parse_primary(with_namespace) : parse_expression(with_condition));
    if (!is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!parentheses) fail("Expected an expression");
  }
  return make(K::kTuple, line, std::move(items));
}

ExprP Parser::parse_list() {
  const int line = next().line;
  std::vector<ExprP> items;
  while (!is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("]")) break;
    items.push_back(parse_expression());
  }
  expect_operator("]");
  return make(K::kList, line, std::move(items));
}

ExprP Parser::parse_dict() {
  const int line = next().line;
  std::vector<ExprP> items;
  while (!is_operator("}")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("}")) break;
    items.push_back(parse_expression());
    expect_operator(":");
    items.push_back(parse_expression());
  }
  expect_operator("}");
  return make(K::kDict, line, std::move(items));
}

}  // namespace thimble::jinja
