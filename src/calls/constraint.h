#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "calls/grammar_text.h"

namespace thimble {

struct Tool;

// What decoding with a grammar needs to know of a tokenizer.
struct TokenTable {
  std::vector<std::string> bytes;  // raw bytes of each token id; empty for one that writes nothing
  std::vector<int32_t> stop_ids;   // tokens that end an answer
  std::vector<bool> special;       // control tokens, which no grammar text contains; empty: none but the stop tokens
};

enum class CallMode {
  kAuto,       // calls, or text
  kRequired,   // at least one call
  kForbidden,  // text only
};

struct ConstraintOptions {
  CallMode mode = CallMode::kAuto;
  int most_calls = 16;  // in one answer, at least 1
  bool plan = false;    // a line of at most 200 characters comes before the answer (data/plan.h)
  // What is said instead of calls is a value of this schema (schema_grammar.h), not free text. Must outlive compile().
  const nlohmann::ordered_json* text_schema = nullptr;
};

// The grammar of an answer, for one sequence. Either one or more Hermes call blocks, whose names and arguments are
// those of the tools, joined by a newline; or free text, in which "<tool_call>" does not occur; then a stop token.
// Special tokens other than stop tokens are never allowed. Not thread-safe; different sequences may run in different
// threads.
class Constraint {
 public:
  ~Constraint();
  Constraint(Constraint&&) noexcept;
  Constraint& operator=(Constraint&&) noexcept;

  // Sets bit i of word i / 32 for every token that may come next. `bits` has at least (vocabulary + 31) / 32 words;
  // what lies beyond the vocabulary is cleared. After the stop token nothing may come.
  void mask(std::span<uint32_t> bits);
  // Takes one token; false, and nothing changes, where the grammar does not allow it.
  bool accept(int32_t token);
  // Whether mask() would set this token's bit. It takes about a microsecond; a mask may take milliseconds: near the
  // end of a string with a maxLength, much of the vocabulary is looked at token by token.
  bool allows(int32_t token);
  bool finished() const;      // a stop token was accepted
  bool may_stop() const;      // the answer is whole: a stop token may come next
  // Tokens that begin a call block where an answer begins; empty where the grammar leaves no choice between calls and
  // text. Bits as mask() sets them.
  std::span<const uint32_t> call_openers() const;
  std::string forced();       // the text that must come next whatever is sampled; may be empty
  void rollback(int tokens);  // takes back the last accepted tokens
  std::unique_ptr<Constraint> fork() const;

 private:
  friend class ConstraintSet;
  struct State;
  explicit Constraint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The compiled grammar of one set of tools, shared by its sequences. Thread-safe.
class ConstraintSet {
 public:
  std::unique_ptr<Constraint> start() const;
  size_t memory_bytes() const;

 private:
  friend class Constraint;
  friend class ConstraintFactory;
  struct Compiled;
  explicit ConstraintSet(std::shared_ptr<const Compiled> compiled);
  std::shared_ptr<const Compiled> compiled_;
};

// Compiles grammars for one tokenizer; make one a tokenizer and keep it: sorting its vocabulary takes as long as
// compiling. Thread-safe.
class ConstraintFactory {
 public:
  explicit ConstraintFactory(const TokenTable& tokens, int threads = 2);
  ~ConstraintFactory();

  // Throws Error for schemas that can't be held to (schema_grammar.h). Twenty tools and 49,152 tokens take about 0.1 s.
  ConstraintSet compile(std::span<const Tool> tools, const ConstraintOptions& options = {}) const;
  // Any grammar in xgrammar's EBNF with the rule root; Error where it is malformed.
  ConstraintSet compile_grammar(const std::string& ebnf) const;

 private:
  struct Compiler;
  std::unique_ptr<Compiler> compiler_;
};

// The texts that compile() allows, as a grammar.
std::string answer_grammar(std::span<const Tool> tools, const ConstraintOptions& options = {},
                           GrammarForm form = GrammarForm::kXgrammar);

}  // namespace thimble
