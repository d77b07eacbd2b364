#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "calls/json.h"

namespace thimble {

struct SchemaProblem {
  std::string place;  // JSON pointer into the value; empty for the value itself
  std::string what;   // "must be one of ...", without a full stop
};

// JSON Schema, draft 2020-12, on one document: all keywords of the validation and applicator vocabularies, `$ref` to
// places in the same document (#, #/...), `$defs`. `format`, `default`, `title` and the other annotations assert
// nothing, as the draft says. Refused with Error at construction, with place: unknown keywords, malformed ones, and
// what is not supported: `$anchor`, `$dynamicRef`,
// `$dynamicAnchor`, `$vocabulary`, `$id` below the root, references to other documents, `unevaluatedItems`,
// `unevaluatedProperties`. Patterns are ECMA 262 as far as PCRE2 reads them the same; \d, \w and \s are ASCII.
class SchemaValidator {
 public:
  SchemaValidator(Json schema, std::string_view where);
  // A schema whose references mean places in `root`.
  SchemaValidator(Json schema, const Json& root, std::string_view where);
  SchemaValidator(SchemaValidator&&) noexcept;
  SchemaValidator& operator=(SchemaValidator&&) noexcept;
  ~SchemaValidator();

  std::vector<SchemaProblem> check(const Json& value) const;
  bool accepts(const Json& value) const { return check(value).empty(); }

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// The place that a local reference names. Throws Error (with `where`) for other references and for places that are not
// there.
const Json& resolve_reference(const Json& root, const std::string& reference, std::string_view where);

// Keywords that say nothing about which values are valid.
bool is_annotation(std::string_view keyword);

size_t code_points(std::string_view utf8);

}  // namespace thimble
