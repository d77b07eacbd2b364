#pragma once

#include <simdjson.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"

namespace thimble {

struct TokenizerParts;

// An object of tokenizer.json with the place to name in messages. A null value counts as absent. All readers throw
// Error where a value is missing or of another type.
class JsonComponent {
 public:
  JsonComponent(simdjson::dom::element value, std::string place);

  const std::string& place() const { return place_; }
  bool has(std::string_view key) const;
  // Refuses every key that is not named here: it could change what the tokenizer does.
  void allow(std::initializer_list<std::string_view> keys) const;

  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string_view otherwise) const;
  std::string character(std::string_view key) const;
  bool flag(std::string_view key) const;
  bool flag(std::string_view key, bool otherwise) const;
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  simdjson::dom::array array(std::string_view key) const;
  simdjson::dom::object object(std::string_view key) const;
  JsonComponent component(std::string_view key) const;
  // {"String": "x"} or {"Regex": "x+"}
  Pattern pattern(std::string_view key) const;

  [[noreturn]] void refuse(const std::string& what) const;

 private:
  simdjson::dom::element get(std::string_view key) const;

  simdjson::dom::object object_;
  std::string place_;
};

// Each appends what the component stands for; a Sequence appends its members. An unknown type throws Error that
// names it.
void add_normalizers(const JsonComponent& component, Normalizer& out);
void add_pre_tokenizers(const JsonComponent& component, PreTokenizer& out);
void add_decoders(const JsonComponent& component, TokenDecoder& out);
void read_post_processor(const JsonComponent& component, TokenizerParts& parts);

}  // namespace thimble
