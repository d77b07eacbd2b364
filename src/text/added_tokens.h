#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_table.h"

namespace thimble {

// A token that is found in text by its content, before anything is split.
struct AddedToken {
  int32_t id;
  std::string content;
  bool special = false;      // a control token: skipped when decoding, and no match where specials are not parsed
  bool single_word = false;  // not inside a word
  bool lstrip = false, rstrip = false;  // takes the white space beside it along
  bool normalized = false;              // sought in normalised text
};

// Finds added tokens as Hugging Face's AddedVocabulary does: leftmost first, of several the longest.
class AddedTokenFinder {
 public:
  // `content` is what to look for, which for normalised tokens is not AddedToken::content.
  void add(const AddedToken& token, std::string content);
  bool empty() const { return tokens_.empty(); }

  // A stretch of text, or an added token (id >= 0).
  struct Part {
    int32_t id;
    size_t begin, end;
  };
  // Appends parts that cover `text`, valid UTF-8. Where `parse_special` is false special tokens are text.
  void split(std::string_view text, bool parse_special, std::vector<Part>& parts) const;

 private:
  // The first place at or behind `at` where a token may begin; the text's size where there is none.
  size_t next_start(std::string_view text, size_t at) const;
  const AddedToken* match_at(std::string_view text, size_t at, size_t& length) const;

  std::vector<AddedToken> tokens_;
  TokenTable by_content_;                           // into tokens_
  std::array<std::vector<uint32_t>, 256> lengths_;  // by first byte: the lengths to try, longest first
  std::string first_bytes_;                         // those that have lengths
  std::vector<bool> pairs_;                         // by a token's first byte * 256 + its second
  bool all_special_ = true;
};

}  // namespace thimble
