#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "calls/grammar_text.h"
#include "calls/json.h"

namespace thimble {

// Rules that all schemas of one grammar share, made at first use.
class JsonRules {
 public:
  explicit JsonRules(GrammarText& grammar) : grammar_(grammar) {}

  GrammarText& grammar() { return grammar_; }
  std::string any_char();  // one character inside a string
  std::string string();    // any string
  std::string number();
  std::string integer();
  std::string boolean();
  std::string value();   // any value
  std::string object();  // any object
  std::string array();   // any array

 private:
  std::string once(const char* name, const std::function<std::string()>& body);

  GrammarText& grammar_;
  std::map<std::string, std::string> names_;
};

// Converts one schema document; the work behind SchemaGrammar::add. Every function gives the EBNF expression of the
// values of a schema, or nothing where no value is valid.
class SchemaConverter {
 public:
  using Expression = std::optional<std::string>;

  SchemaConverter(JsonRules& rules, const Json& document, std::string where);
  Expression convert() { return convert(document_, "#", 0); }

 private:
  [[noreturn]] void fail(const std::string& place, const std::string& what) const;
  Expression convert(const Json& schema, const std::string& place, int depth);
  Expression convert_reference(const std::string& reference, const std::string& place, int depth);
  Expression convert_listed(const Json& schema, const std::string& place);
  Expression convert_type(const std::string& type, const Json& schema, const std::string& place, int depth);
  Expression convert_string(const Json& schema, const std::string& place);
  Expression convert_number(const Json& schema, bool whole, const std::string& place);
  Expression convert_array(const Json& schema, const std::string& place, int depth);
  Expression convert_unique(const Json& items, size_t low, std::optional<size_t> high, const std::string& place);
  Expression convert_object(const Json& schema, const std::string& place, int depth);
  std::string other_name(const std::vector<std::string>& named);  // a quoted key that is none of these
  void refuse_unenforced(const Json& schema, const std::string& place) const;
  std::vector<std::string> types_of(const Json& schema, const std::string& place) const;

  JsonRules& rules_;
  GrammarText& grammar_;
  const Json& document_;
  std::string where_;
  std::map<std::string, Expression> references_;  // rule of each place referred to
};

}  // namespace thimble
