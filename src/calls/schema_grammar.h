#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "calls/grammar_text.h"
#include "calls/json.h"

namespace thimble {

// JSON Schema to EBNF: a grammar whose texts are values in the form of write_json, each of which the schema accepts.
// The form is fixed to the byte (", " and ": ", properties in the order of the schema, optional ones left out or not,
// then additional ones, no needless escapes), so that what is trained and what may be generated are the same text.
//
// Exact: type (also a list of them), enum and const (their values are first sifted by the rest of the schema),
// properties, required, additionalProperties, items, prefixItems, minItems, maxItems, uniqueItems over up to eight
// listed values, minLength, maxLength, pattern (a subset: pattern_grammar.h), minimum, maximum and their exclusive
// forms for integers and numbers, multipleOf for a bounded integer, anyOf, allOf, $ref and $defs with recursion.
// Narrower than the schema: of strings with a maxLength above 16, those whose escapes, counted as they are written,
// don't fit into it; an object that lists properties and is silent about additionalProperties gets none; without
// `type` but with keywords of one type, that type; integers have at most 18 digits, numbers with bounds no exponent.
// Wider: oneOf is taken as anyOf, additional property names can repeat; validate what comes out.
// format asserts nothing. Everything else is refused with Error that names keyword and place.
class SchemaGrammar {
 public:
  explicit SchemaGrammar(GrammarText& grammar);
  ~SchemaGrammar();

  // Adds the rules of a schema, the document of its own references, and gives the name of the rule of its values.
  // Throws Error also where no value is valid. `where` names the schema in messages: "tools.json: tool a".
  std::string add(const Json& schema, std::string_view where);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// The whole grammar of one schema, with the rule root.
std::string schema_to_grammar(const Json& schema, std::string_view where);

}  // namespace thimble
