#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thimble {

enum class GrammarForm : uint8_t { kXgrammar, kGbnf };

// An EBNF grammar in the making, in the notation that xgrammar and llama.cpp's GBNF share but for few things: named
// rules, and helpers to quote what stands in them.
class GrammarText {
 public:
  explicit GrammarText(GrammarForm form = GrammarForm::kXgrammar) : form_(form) {}

  // Adds a rule and gives its name; names are made unique from the hint.
  std::string add(std::string_view hint, std::string body);
  // The same in two steps, for rules that refer to themselves.
  std::string reserve(std::string_view hint);
  void define(const std::string& name, std::string body);

  // A rule for `least` to `most` of a rule that writes a character or an escape. xgrammar counts characters as they are
  // written instead of the repetitions where there are more than 16: an escape counts for two to six then, so that
  // somewhat shorter texts are allowed, but a mask takes 0.02 ms instead of 300 ms at 200 characters.
  std::string add_characters(std::string_view hint, const std::string& character, size_t least, size_t most);

  // A rule for any text in which `excluded`, ASCII characters, does not occur.
  std::string add_text_without(std::string_view excluded);

  size_t bytes() const { return bytes_; }
  // Whether every rule can come to an end. One that refers to itself on all its ways can't, and decoding that entered
  // it could never leave.
  bool ends() const;
  // All rules with a root rule before them.
  std::string text(std::string_view root_body) const;

 private:
  GrammarForm form_;
  std::vector<std::pair<std::string, std::string>> rules_;
  std::map<std::string, size_t> most_characters_;  // of some rules, by name
  size_t bytes_ = 0;
};

std::string quote_literal(std::string_view utf8);  // text as an EBNF literal

// Sets of Unicode code points without surrogates, as sorted ranges that neither touch nor overlap.
class CharSet {
 public:
  using Range = std::pair<uint32_t, uint32_t>;  // both ends belong to it

  CharSet() = default;
  explicit CharSet(std::vector<Range> ranges);
  static CharSet all();

  CharSet operator|(const CharSet& other) const;
  CharSet complement() const;
  CharSet without(const CharSet& other) const;
  const std::vector<Range>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  std::string ebnf() const;  // as a character class; the set must not be empty

 private:
  std::vector<Range> ranges_;
};

// One character of a set as it stands in a JSON string: itself, or its escape where JSON demands one. Empty for an
// empty set.
std::string json_char(const CharSet& set);

}  // namespace thimble
