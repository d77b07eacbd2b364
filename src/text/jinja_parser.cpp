#include "text/jinja_parser.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/error.h"
#include "text/jinja_unicode.h"

namespace thimble::jinja {

namespace {
using Kind = Token::Kind;

std::string describe(Kind kind) {
  switch (kind) {
    case Kind::kData: return "template data / text";
    case Kind::kVariableBegin: return "begin of print statement";
    case Kind::kVariableEnd: return "end of print statement";
    case Kind::kBlockBegin: return "begin of statement block";
    case Kind::kBlockEnd: return "end of statement block";
    case Kind::kName: return "name";
    case Kind::kString: return "string";
    case Kind::kInteger: return "integer";
    case Kind::kFloat: return "float";
    case Kind::kOperator: return "operator";
    case Kind::kEnd: return "end of template";
  }
  return "";
}

std::string describe(const Token& token) {
  return token.kind == Kind::kName || token.kind == Kind::kOperator ? token.text : describe(token.kind);
}

StmtP make_stmt(Stmt::Kind kind, int line) {
  auto stmt = std::make_unique<Stmt>();
  stmt->kind = kind;
  stmt->line = line;
  return stmt;
}
}  // namespace

Token Parser::next() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_name(std::string_view name) {
  if (!is_name(name)) return false;
  next();
  return true;
}

bool Parser::skip_operator(std::string_view op) {
  if (!is_operator(op)) return false;
  next();
  return true;
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail(fmt::format("expected token '{}', got '{}'", name, describe(current())));
}

void Parser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail(fmt::format("expected token '{}', got '{}'", op, describe(current())));
}

void Parser::expect(Kind kind) {
  if (current().kind != kind) fail(fmt::format("expected token '{}', got '{}'", describe(kind), describe(current())));
  next();
}

std::string Parser::expect_any_name() {
  if (current().kind != Kind::kName) fail(fmt::format("expected token 'name', got '{}'", describe(current())));
  return next().text;
}

Body Parser::parse() {
  Body body = parse_until({});
  if (current().kind != Kind::kEnd) fail("unexpected tag");
  return body;
}

Body Parser::parse_until(Ends ends) {
  const Nesting nesting(*this);
  Body body;
  StmtP output;
  const auto flush = [&] {
    if (output) body.push_back(std::move(output));
  };
  while (current().kind != Kind::kEnd) {
    const int line = current().line;
    if (current().kind == Kind::kData || current().kind == Kind::kVariableBegin) {
      if (!output) output = make_stmt(Stmt::Kind::kOutput, line);
      if (current().kind == Kind::kData) {
        output->parts.push_back({next().text, nullptr});
      } else {
        next();
        output->parts.push_back({"", parse_tuple(false, true, {})});
        expect(Kind::kVariableEnd);
      }
      continue;
    }
    flush();
    expect(Kind::kBlockBegin);
    if (current().kind == Kind::kName && std::find(ends.begin(), ends.end(), current().text) != ends.end()) return body;
    if (current().kind != Kind::kName) fail("tag name expected");
    if (auto stmt = parse_statement()) body.push_back(std::move(stmt));
    expect(Kind::kBlockEnd);
  }
  flush();
  if (ends.size() != 0) {
    fail(fmt::format("Unexpected end of template. Jinja was looking for the following tags: '{}'",
                     fmt::join(ends.begin(), ends.end(), "' or '")));
  }
  return body;
}

// Behind the tag's own expression: an optional colon, the end of the tag, then the body.
Body Parser::parse_block_body(Ends ends) {
  skip_operator(":");
  expect(Kind::kBlockEnd);
  return parse_until(ends);
}

void Parser::drop_end(std::string_view name) { expect_name(name); }

StmtP Parser::parse_statement() {
  const std::string& tag = current().text;
  const int line = current().line;
  if (tag == "set") return parse_set();
  if (tag == "for") return parse_for();
  if (tag == "if") return parse_if();
  if (tag == "with") return parse_with();
  if (tag == "block") return parse_block();
  if (tag == "print") return parse_print();
  if (tag == "macro") return parse_macro();
  if (tag == "call") return parse_call_block();
  if (tag == "filter") return parse_filter_block();
  if (tag == "generation") return parse_generation();
  if (tag == "break" || tag == "continue") {
    return make_stmt(next().text == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue, line);
  }
  if (tag == "extends" || tag == "include" || tag == "import" || tag == "from") {
    fail(fmt::format("'{}' is refused: a chat template is one text and loads no other", tag));
  }
  if (tag == "autoescape") fail("'autoescape' is refused: chat templates write plain text");
  fail(fmt::format("Encountered unknown tag '{}'", tag));
}

StmtP Parser::parse_set() {
  auto stmt = make_stmt(Stmt::Kind::kSet, next().line);
  stmt->target = parse_assign_target(true);
  if (skip_operator("=")) {
    stmt->expr = parse_tuple(false, true, {});
    return stmt;
  }
  stmt->kind = Stmt::Kind::kSetBlock;
  stmt->expr = parse_filter(nullptr, false);
  stmt->body = parse_block_body({"endset"});
  drop_end("endset");
  return stmt;
}

StmtP Parser::parse_for() {
  auto stmt = make_stmt(Stmt::Kind::kFor, next().line);
  stmt->target = parse_assign_target(false, {"in"});
  expect_name("in");
  stmt->expr = parse_tuple(false, false, {"recursive"});
  if (skip_name("if")) stmt->test = parse_expression();
  stmt->recursive = skip_name("recursive");
  stmt->body = parse_block_body({"endfor", "else"});
  if (next().text == "else") {
    stmt->else_body = parse_block_body({"endfor"});
    drop_end("endfor");
  }
  return stmt;
}

StmtP Parser::parse_if() {
  auto stmt = make_stmt(Stmt::Kind::kIf, next().line);
  while (true) {
    Stmt::Branch branch;
    branch.test = parse_tuple(false, false, {});
    branch.body = parse_block_body({"elif", "else", "endif"});
    stmt->branches.push_back(std::move(branch));
    const Token end = next();
    if (end.text == "elif") continue;
    if (end.text == "else") {
      stmt->else_body = parse_block_body({"endif"});
      drop_end("endif");
    }
    return stmt;
  }
}

StmtP Parser::parse_with() {
  auto stmt = make_stmt(Stmt::Kind::kWith, next().line);
  while (current().kind != Kind::kBlockEnd) {
    if (!stmt->bindings.empty()) expect_operator(",");
    auto target = parse_assign_target();
    expect_operator("=");
    stmt->bindings.emplace_back(std::move(target), parse_expression());
  }
  stmt->body = parse_block_body({"endwith"});
  drop_end("endwith");
  return stmt;
}

StmtP Parser::parse_block() {
  auto stmt = make_stmt(Stmt::Kind::kBlock, next().line);
  stmt->name = expect_any_name();
  stmt->scoped = skip_name("scoped");
  stmt->required = skip_name("required");
  stmt->body = parse_block_body({"endblock"});
  if (stmt->required) {
    const auto blank = [](const std::string& text) {
      for (size_t at = 0; at < text.size();) {
        if (!is_space(decode_at(text, at))) return false;
      }
      return true;
    };
    for (const auto& child : stmt->body) {
      bool plain = child->kind == Stmt::Kind::kOutput;
      for (const auto& part : child->parts) plain = plain && part.expr == nullptr && blank(part.text);
      if (!plain) fail("Required blocks can only contain comments or whitespace");
    }
  }
  drop_end("endblock");
  skip_name(stmt->name);
  return stmt;
}

StmtP Parser::parse_print() {
  auto stmt = make_stmt(Stmt::Kind::kOutput, next().line);
  while (current().kind != Kind::kBlockEnd) {
    if (!stmt->parts.empty()) expect_operator(",");
    stmt->parts.push_back({"", parse_expression()});
  }
  return stmt;
}

void Parser::parse_signature(MacroCode& macro) {
  expect_operator("(");
  while (!is_operator(")")) {
    if (!macro.parameters.empty()) expect_operator(",");
    const std::string name = parse_target_name();
    if (std::find(macro.parameters.begin(), macro.parameters.end(), name) != macro.parameters.end()) {
      fail(fmt::format("duplicate argument '{}'", name));
    }
    if (skip_operator("=")) {
      macro.defaults.push_back(parse_expression());
    } else if (!macro.defaults.empty()) {
      fail("non-default argument follows default argument");
    }
    macro.parameters.push_back(name);
  }
  expect_operator(")");
}

StmtP Parser::parse_macro() {
  auto stmt = make_stmt(Stmt::Kind::kMacro, next().line);
  stmt->macro = std::make_unique<MacroCode>();
  stmt->macro->line = stmt->line;
  stmt->macro->name = parse_target_name();
  parse_signature(*stmt->macro);
  stmt->macro->body = parse_block_body({"endmacro"});
  drop_end("endmacro");
  return stmt;
}

StmtP Parser::parse_call_block() {
  auto stmt = make_stmt(Stmt::Kind::kCallBlock, next().line);
  stmt->macro = std::make_unique<MacroCode>();
  stmt->macro->line = stmt->line;
  if (is_operator("(")) parse_signature(*stmt->macro);
  stmt->expr = parse_expression();
  if (stmt->expr->kind != Expr::Kind::kCall) fail("expected call");
  stmt->macro->body = parse_block_body({"endcall"});
  drop_end("endcall");
  return stmt;
}

StmtP Parser::parse_filter_block() {
  auto stmt = make_stmt(Stmt::Kind::kFilterBlock, next().line);
  stmt->expr = parse_filter(nullptr, true);
  stmt->body = parse_block_body({"endfilter"});
  drop_end("endfilter");
  return stmt;
}

StmtP Parser::parse_generation() {
  auto stmt = make_stmt(Stmt::Kind::kGeneration, next().line);
  stmt->macro = std::make_unique<MacroCode>();
  stmt->macro->line = stmt->line;
  stmt->macro->body = parse_block_body({"endgeneration"});
  drop_end("endgeneration");
  return stmt;
}

}  // namespace thimble::jinja
