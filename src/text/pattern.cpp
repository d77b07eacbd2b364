#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include <fmt/core.h>
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "core/error.h"
#include "text/unicode_additions.h"

namespace thimble {
namespace {

// What a match needs beside the code: one set a thread serves every pattern.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr);

  Scratch() {
    if (data == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

PCRE2_SPTR pointer(std::string_view text) {
  static const char kEmpty = 0;  // PCRE2 wants a pointer even for no bytes
  return reinterpret_cast<PCRE2_SPTR>(text.empty() ? &kEmpty : text.data());
}

}  // namespace

struct Pattern::Code {
  pcre2_code* code = nullptr;
  bool jit = false;

  // Ruby's ^ and $ match at every line, and only \n ends one.
  Code(const std::string& expression, std::string_view original) {
    const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
        pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_max_pattern_length(context.get(), 1 << 16);
    int error = 0;
    size_t place = 0;
    code =
        pcre2_compile(pointer(expression), expression.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &place, context.get());
    if (code == nullptr)
      throw Error(fmt::format("the tokenizer's pattern '{}' is not a regular expression that can be used here: {}",
                              original, error_text(error)));
    jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }

  int match(std::string_view text, size_t from) const {
    Scratch& s = scratch();
    if (jit) {
      const int result = pcre2_jit_match(code, pointer(text), text.size(), from, 0, s.data, s.context);
      if (result != PCRE2_ERROR_JIT_STACKLIMIT) return result;
    }
    return pcre2_match(code, pointer(text), text.size(), from, PCRE2_NO_JIT | PCRE2_NO_UTF_CHECK, s.data, s.context);
  }
};

Pattern Pattern::literal(std::string text) {
  Pattern pattern;
  pattern.is_literal_ = true;
  pattern.literal_ = std::move(text);
  return pattern;
}

Pattern Pattern::regex(std::string_view expression) {
  Pattern pattern;
  pattern.expression_ = expression;
  pattern.word_rule_ = find_word_rule(expression);
  pattern.finds_digits_ = expression == kDigitPattern;
  if (pattern.word_rule_ || pattern.finds_digits_) return pattern;
  const std::string plain = translate_expression(expression, false);
  const std::string extended = translate_expression(expression, true);
  pattern.plain_ = std::make_shared<const Code>(plain, expression);
  pattern.extended_ = extended == plain ? pattern.plain_ : std::make_shared<const Code>(extended, expression);
  return pattern;
}

bool Pattern::find(std::string_view text, size_t from, bool additions, Match& match) const {
  if (is_literal()) {
    if (literal_.empty()) return false;
    const size_t at = text.find(literal_, from);
    if (at == std::string_view::npos) return false;
    match = {at, at + literal_.size()};
    return true;
  }
  if (finds_digits_) return find_digit(text, from, match.begin, match.end);
  if (word_rule_) {
    if (from == text.size()) return false;
    match.begin = from;
    return split_words(*word_rule_, text, from, {&match.end, 1}) == 1;
  }
  const int result = (additions ? extended_ : plain_)->match(text, from);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0)
    throw Error(fmt::format("the tokenizer's pattern '{}' failed at byte {} of a text of {} bytes ({}): split the text",
                            expression_, from, text.size(), error_text(result)));
  const size_t* ends = pcre2_get_ovector_pointer(scratch().data);
  // \K in a look-ahead can put the start behind the end.
  match = {std::min(ends[0], ends[1]), ends[1]};
  return true;
}

std::string Pattern::replace_all(std::string_view text, std::string_view content, size_t growth) const {
  std::string out;
  size_t copied = 0;
  const bool additions = !is_literal() && has_unicode_additions(text);
  for_each(text, additions, [&](size_t begin, size_t end) {
    out += text.substr(copied, begin - copied);
    out += content;
    copied = end;
    if (out.size() > copied + growth)
      throw Error(fmt::format("the tokenizer's Replace of '{}' makes a text of {} bytes far too long",
                              is_literal() ? literal_ : expression_, text.size()));
  });
  return out += text.substr(copied);
}

}  // namespace thimble
