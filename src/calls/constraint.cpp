#include "calls/constraint.h"

#include <fmt/format.h>
#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <cassert>

#include "calls/hermes.h"
#include "calls/schema_grammar.h"
#include "calls/tool.h"
#include "core/error.h"

namespace thimble {

struct ConstraintSet::Compiled {
  xgrammar::CompiledGrammar grammar;
  size_t words;  // of a mask
  std::vector<bool>
      accepts;  // tokens with text, and stop tokens; xgrammar prints a warning when it is asked for others
  std::vector<uint32_t> call_openers = {};
};

struct Constraint::State {
  xgrammar::GrammarMatcher matcher;
  std::shared_ptr<const ConstraintSet::Compiled> compiled;
};

struct ConstraintFactory::Compiler {
  xgrammar::TokenizerInfo tokens;
  mutable xgrammar::GrammarCompiler compiler;
};

Constraint::Constraint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Constraint::~Constraint() = default;
Constraint::Constraint(Constraint&&) noexcept = default;
Constraint& Constraint::operator=(Constraint&&) noexcept = default;

void Constraint::mask(std::span<uint32_t> bits) {
  assert(bits.size() >= state_->compiled->words);
  std::fill(bits.begin(), bits.end(), 0u);
  if (state_->matcher.IsTerminated()) return;
  int64_t shape = static_cast<int64_t>(state_->compiled->words);
  DLTensor tensor{};  // a view of the caller's bits
  tensor.data = bits.data();
  tensor.device = DLDevice{kDLCPU, 0};
  tensor.ndim = 1;
  tensor.dtype = xgrammar::GetBitmaskDLType();
  tensor.shape = &shape;
  state_->matcher.FillNextTokenBitmask(&tensor);
}

bool Constraint::accept(int32_t token) {
  const auto& accepts = state_->compiled->accepts;
  if (token < 0 || static_cast<size_t>(token) >= accepts.size() || !accepts[static_cast<size_t>(token)]) return false;
  return !state_->matcher.IsTerminated() && state_->matcher.AcceptToken(token);
}
bool Constraint::allows(int32_t token) {
  if (!accept(token)) return false;
  rollback(1);
  return true;
}
std::span<const uint32_t> Constraint::call_openers() const { return state_->compiled->call_openers; }
bool Constraint::finished() const { return state_->matcher.IsTerminated(); }
bool Constraint::may_stop() const { return !finished() && state_->matcher.IsCompleted(); }
std::string Constraint::forced() { return finished() ? "" : state_->matcher.FindJumpForwardString(); }
void Constraint::rollback(int tokens) { state_->matcher.Rollback(tokens); }

std::unique_ptr<Constraint> Constraint::fork() const {
  return std::unique_ptr<Constraint>(
      new Constraint(std::unique_ptr<State>(new State{state_->matcher.Fork(), state_->compiled})));
}

ConstraintSet::ConstraintSet(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}

std::unique_ptr<Constraint> ConstraintSet::start() const {
  using State = Constraint::State;
  return std::unique_ptr<Constraint>(
      new Constraint(std::unique_ptr<State>(new State{xgrammar::GrammarMatcher(compiled_->grammar), compiled_})));
}

size_t ConstraintSet::memory_bytes() const { return compiled_->grammar.MemorySizeBytes(); }

namespace {

xgrammar::TokenizerInfo tokenizer_info(const TokenTable& table) {
  // xgrammar takes tokens without bytes for special ones, which no text contains.
  std::vector<std::string> bytes = table.bytes;
  for (size_t i = 0; i < table.special.size() && i < bytes.size(); ++i) {
    if (table.special[i]) bytes[i].clear();
  }
  for (const int32_t stop : table.stop_ids) {
    assert(stop >= 0 && static_cast<size_t>(stop) < bytes.size());
    bytes[static_cast<size_t>(stop)].clear();
  }
  return xgrammar::TokenizerInfo(bytes, xgrammar::VocabType::RAW, static_cast<int>(bytes.size()), table.stop_ids);
}

}  // namespace

ConstraintFactory::ConstraintFactory(const TokenTable& tokens, int threads) {
  if (tokens.stop_ids.empty())
    throw Error("The tokenizer has no token that ends an answer, so no answer can be constrained.");
  const xgrammar::TokenizerInfo info = tokenizer_info(tokens);
  compiler_.reset(new Compiler{info, xgrammar::GrammarCompiler(info, threads, false)});
}
ConstraintFactory::~ConstraintFactory() = default;

ConstraintSet ConstraintFactory::compile(std::span<const Tool> tools, const ConstraintOptions& options) const {
  ConstraintSet set = compile_grammar(answer_grammar(tools, options, GrammarForm::kXgrammar));
  if (tools.empty() || options.mode != CallMode::kAuto || options.plan) return set;
  auto compiled = std::make_shared<ConstraintSet::Compiled>(*set.compiled_);
  compiled->call_openers.assign(compiled->words, 0);
  const auto& texts = compiler_->tokens.GetDecodedVocab();
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty()) continue;
    if (kCallOpen.starts_with(texts[i]) || texts[i].starts_with(kCallOpen))
      compiled->call_openers[i / 32] |= 1u << (i % 32);
  }
  return ConstraintSet(std::move(compiled));
}

ConstraintSet ConstraintFactory::compile_grammar(const std::string& ebnf) const {
  try {
    const size_t words = static_cast<size_t>(xgrammar::GetBitmaskSize(compiler_->tokens.GetVocabSize()));
    const auto& texts = compiler_->tokens.GetDecodedVocab();
    std::vector<bool> accepts(texts.size());
    std::transform(texts.begin(), texts.end(), accepts.begin(), [](const std::string& text) { return !text.empty(); });
    for (const int32_t stop : compiler_->tokens.GetStopTokenIds()) accepts[static_cast<size_t>(stop)] = true;
    return ConstraintSet(std::shared_ptr<const ConstraintSet::Compiled>(
        new ConstraintSet::Compiled{compiler_->compiler.CompileGrammar(ebnf), words, std::move(accepts)}));
  } catch (const std::exception& error) {
    throw Error(fmt::format("The grammar of the answers can't be compiled: {}", error.what()));
  }
}

std::string answer_grammar(std::span<const Tool> tools, const ConstraintOptions& options, GrammarForm form) {
  GrammarText grammar(form);
  // xgrammar walks its own automaton of free text many times faster than rules that say the same.
  std::string text =
      form == GrammarForm::kGbnf
          ? grammar.add_text_without(kCallOpen)
          : grammar.add("text", fmt::format("TagDispatch(loop_after_dispatch=false, excludes=({},))",
                                            quote_literal(kCallOpen)));
  if (options.text_schema != nullptr) text = SchemaGrammar(grammar).add(*options.text_schema, "response_format");
  const std::string plan = options.plan ? grammar.add("plan", "[^\\n<]{1,200} \"\\n\"") + " " : "";
  if (options.mode == CallMode::kForbidden) return grammar.text(plan + text);
  if (tools.empty()) {
    if (options.mode == CallMode::kRequired) throw Error("A call is required, but there are no tools.");
    return grammar.text(plan + text);
  }
  if (options.most_calls < 1) throw Error("At least one call must be allowed in an answer, or calls forbidden.");
  SchemaGrammar schemas(grammar);
  std::string alternatives;
  for (const Tool& tool : tools) {
    const std::string arguments = schemas.add(tool.parameters, fmt::format("tool {}", tool.name));
    const std::string head = write_json_string(tool.name) + ", \"arguments\": ";
    alternatives += fmt::format("{}{} {}", alternatives.empty() ? "" : " | ", quote_literal(head), arguments);
  }
  const std::string body = grammar.add("call", alternatives);
  const std::string open = fmt::format("{}\n{{\"name\": ", kCallOpen), close = fmt::format("}}\n{}", kCallClose);
  const std::string block =
      grammar.add("block", fmt::format("{} {} {}", quote_literal(open), body, quote_literal(close)));
  const std::string calls =
      grammar.add("calls", fmt::format("{} (\"\\n\" {}){{0,{}}}", block, block, options.most_calls - 1));
  return grammar.text(options.mode == CallMode::kRequired ? plan + calls
                                                          : fmt::format("{}({} | {})", plan, calls, text));
}

}  // namespace thimble
