#include "calls/schema_grammar.h"

#include <fmt/format.h>

#include "calls/schema_converter.h"
#include "core/error.h"

namespace thimble {

struct SchemaGrammar::Shared {
  JsonRules rules;
};

SchemaGrammar::SchemaGrammar(GrammarText& grammar) : shared_(new Shared{JsonRules(grammar)}) {}
SchemaGrammar::~SchemaGrammar() = default;

std::string SchemaGrammar::add(const Json& schema, std::string_view where) {
  const auto rule = SchemaConverter(shared_->rules, schema, std::string(where)).convert();
  if (!rule) throw Error(fmt::format("{}: no value is valid for this schema.", where));
  if (!shared_->rules.grammar().ends()) {
    throw Error(fmt::format("{}: a part of the schema refers to itself and never comes to an end.", where));
  }
  return *rule;
}

std::string schema_to_grammar(const Json& schema, std::string_view where) {
  GrammarText grammar;
  const std::string rule = SchemaGrammar(grammar).add(schema, where);
  return grammar.text(rule);
}

}  // namespace thimble
