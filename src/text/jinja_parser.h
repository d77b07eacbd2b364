#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace thimble::jinja {

// A recursive descent over the tokens, in the steps of jinja2's parser so that it accepts the same language.
// Throws Error with the line.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Body parse();

 private:
  using Ends = std::initializer_list<std::string_view>;

  // tokens
  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool is_name(std::string_view name) const { return is_name(current(), name); }
  static bool is_name(const Token& token, std::string_view name) {
    return token.kind == Token::Kind::kName && token.text == name;
  }
  bool is_operator(std::string_view op) const { return is_operator(current(), op); }
  static bool is_operator(const Token& token, std::string_view op) {
    return token.kind == Token::Kind::kOperator && token.text == op;
  }
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  void expect_name(std::string_view name);
  void expect_operator(std::string_view op);
  void expect(Token::Kind kind);
  std::string expect_any_name();
  [[noreturn]] void fail(const std::string& message) const { fail_syntax(current().line, message); }

  // statements
  Body parse_until(Ends ends);  // the body's tags up to one of the ends, whose name is then current
  Body parse_block_body(Ends ends);
  void drop_end(std::string_view name);
  StmtP parse_statement();
  StmtP parse_set();
  StmtP parse_for();
  StmtP parse_if();
  StmtP parse_with();
  StmtP parse_block();
  StmtP parse_print();
  StmtP parse_macro();
  StmtP parse_call_block();
  StmtP parse_filter_block();
  StmtP parse_generation();
  void parse_signature(MacroCode& macro);

  // expressions
  ExprP make(Expr::Kind kind, int line, std::vector<ExprP> operands = {});
  ExprP make(Expr::Kind kind, int line, ExprP a, ExprP b = nullptr, ExprP c = nullptr);
  void deepen(Expr& expr, const ExprP& child) const;
  ExprP parse_assign_target(bool with_namespace = false, Ends ends = {});
  std::string parse_target_name();
  void mark_store(Expr& target);
  ExprP parse_expression(bool with_condition = true);
  ExprP parse_condition();
  ExprP parse_or();
  ExprP parse_and();
  ExprP parse_not();
  ExprP parse_compare();
  ExprP parse_sum();
  ExprP parse_concat();
  ExprP parse_product();
  ExprP parse_power();
  ExprP parse_unary(bool with_filter = true);
  ExprP parse_primary(bool with_namespace = false);
  ExprP parse_tuple(bool simplified, bool with_condition, Ends ends, bool parentheses = false,
                    bool with_namespace = false);
  ExprP parse_list();
  ExprP parse_dict();
  ExprP parse_postfix(ExprP node);
  ExprP parse_filter_expr(ExprP node);
  ExprP parse_subscript(ExprP node);
  ExprP parse_subscribed();
  ExprP parse_call(ExprP node);
  ExprP parse_filter(ExprP node, bool start_inline);
  ExprP parse_test(ExprP node);
  void parse_arguments(Expr& expr);

  struct Nesting;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

// One more level of syntax.
struct Parser::Nesting {
  explicit Nesting(Parser& parser) : parser(parser) {
    if (++parser.depth_ > kMaxSyntaxDepth / 2) {
      --parser.depth_;
      parser.fail("the template is nested too deep");
    }
  }
  ~Nesting() { --parser.depth_; }
  Parser& parser;
};

}  // namespace thimble::jinja
