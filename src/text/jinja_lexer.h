#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace thimble::jinja {

struct Token {
  enum class Kind {
    kData, kVariableBegin, kVariableEnd, kBlockBegin, kBlockEnd, kName, kString, kInteger, kFloat, kOperator, kEnd
  };
  Kind kind;
  int line;
  std::string text;  // kOperator: the operator; kString: unescaped
};

// Cuts a template into tokens as jinja2's lexer does with trim_blocks and lstrip_blocks. Throws Error with the line.
std::vector<Token> tokenize(std::string_view source);

[[noreturn]] void fail_syntax(int line, const std::string& message);

}  // namespace thimble::jinja
