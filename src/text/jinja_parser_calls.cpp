#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_parser.h"

// What follows a value: subscripts, calls, filters and tests.
namespace thimble::jinja {

namespace {
using Kind = Token::Kind;
using K = Expr::Kind;
}  // namespace

ExprP Parser::parse_postfix(ExprP node) {
  while (true) {
    if (is_operator(".") || is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprP Parser::parse_filter_expr(ExprP node) {
  while (true) {
    if (is_operator("|")) {
      node = parse_filter(std::move(node), false);
    } else if (is_name("is")) {
      node = parse_test(std::move(node));
    } else if (is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprP Parser::parse_subscript(ExprP node) {
  const Token token = next();
  if (token.text == ".") {
    const Token attribute = next();
    if (attribute.kind == Kind::kName) {
      ExprP expr = make(K::kGetattr, token.line, std::move(node));
      expr->name = attribute.text;
      return expr;
    }
    if (attribute.kind != Kind::kInteger) fail_syntax(attribute.line, "expected name or number");
    --at_;
    ExprP index = parse_primary();
    return make(K::kGetitem, token.line, std::move(node), std::move(index));
  }
  std::vector<ExprP> indices;
  while (!is_operator("]")) {
    if (!indices.empty()) expect_operator(",");
    indices.push_back(parse_subscribed());
  }
  expect_operator("]");
  ExprP index = indices.size() == 1 ? std::move(indices[0]) : make(K::kTuple, token.line, std::move(indices));
  return make(K::kGetitem, token.line, std::move(node), std::move(index));
}

ExprP Parser::parse_subscribed() {
  const int line = current().line;
  std::vector<ExprP> parts(3);
  if (!skip_operator(":")) {
    parts[0] = parse_expression();
    if (!skip_operator(":")) return std::move(parts[0]);
  }
  const auto ended = [&] { return is_operator("]") || is_operator(","); };
  if (!is_operator(":") && !ended()) parts[1] = parse_expression();
  if (skip_operator(":") && !ended()) parts[2] = parse_expression();
  return make(K::kSlice, line, std::move(parts));
}

void Parser::parse_arguments(Expr& expr) {
  const int line = current().line;
  expect_operator("(");
  auto& [positional, keywords, star, star_star] = expr.arguments;
  const auto ensure = [&](bool condition) {
    if (!condition) fail_syntax(line, "invalid syntax for function call expression");
  };
  bool comma = false;
  while (!is_operator(")")) {
    if (comma) {
      expect_operator(",");
      if (is_operator(")")) break;
    }
    if (skip_operator("*")) {
      ensure(!star && !star_star);
      star = parse_expression();
      deepen(expr, star);
    } else if (skip_operator("**")) {
      ensure(!star_star);
      star_star = parse_expression();
      deepen(expr, star_star);
    } else if (current().kind == Kind::kName && is_operator(look(), "=")) {
      ensure(!star_star);
      const std::string name = next().text;
      next();
      for (const auto& [known, value] : keywords) {
        if (known == name) fail_syntax(line, fmt::format("keyword argument repeated: {}", name));
      }
      keywords.emplace_back(name, parse_expression());
      deepen(expr, keywords.back().second);
    } else {
      ensure(!star && !star_star && keywords.empty());
      positional.push_back(parse_expression());
      deepen(expr, positional.back());
    }
    comma = true;
  }
  expect_operator(")");
}

ExprP Parser::parse_call(ExprP node) {
  ExprP expr = make(K::kCall, current().line, std::move(node));
  parse_arguments(*expr);
  return expr;
}

// With start_inline the first filter has no pipe before it: {% filter upper %}.
ExprP Parser::parse_filter(ExprP node, bool start_inline) {
  while (is_operator("|") || start_inline) {
    if (!start_inline) next();
    const int line = current().line;
    std::string name = expect_any_name();
    while (skip_operator(".")) name.append(1, '.').append(expect_any_name());
    ExprP filter = make(K::kFilter, line, std::move(node));
    filter->name = std::move(name);
    if (is_operator("(")) parse_arguments(*filter);
    node = std::move(filter);
    start_inline = false;
  }
  return node;
}

ExprP Parser::parse_test(ExprP node) {
  const int line = next().line;
  const bool negated = skip_name("not");
  std::string name = expect_any_name();
  while (skip_operator(".")) name.append(1, '.').append(expect_any_name());
  ExprP test = make(K::kTest, line, std::move(node));
  test->name = std::move(name);
  const Token& token = current();
  const bool argument = token.kind == Kind::kName || token.kind == Kind::kString || token.kind == Kind::kInteger ||
                        token.kind == Kind::kFloat || is_operator("[") || is_operator("{");
  if (is_operator("(")) {
    parse_arguments(*test);
  } else if (argument && !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) fail("You cannot chain multiple tests with is");
    test->arguments.positional.push_back(parse_postfix(parse_primary()));
    deepen(*test, test->arguments.positional.back());
  }
  return negated ? make(K::kNot, line, std::move(test)) : std::move(test);
}

}  // namespace thimble::jinja
