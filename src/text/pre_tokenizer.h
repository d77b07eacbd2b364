#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/pattern.h"

namespace thimble {

// A stretch of text that is tokenized by itself.
struct Piece {
  std::string_view text;
  bool starts_input = false;  // at byte 0 of what the user passed
};

// What tokenizer.json calls a pre-tokenizer: a list of steps that cut text into pieces.
class PreTokenizer {
 public:
  // What becomes of the text that a pattern matches: a piece of its own, dropped, one with its matching
  // neighbours, or a part of the piece before or behind.
  enum class Behavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };
  struct Split {
    Pattern pattern;
    Behavior behavior;
    bool invert = false;  // what lies between matches counts as matching
  };
  struct Metaspace {  // spaces become a visible character, which starts each word
    enum class Prepend { kAlways, kFirst, kNever };
    std::string replacement;
    Prepend prepend;
    bool split;
  };
  struct ByteLevel {
    bool add_prefix_space, use_regex;
  };
  using Step = std::variant<Split, Metaspace, ByteLevel>;

  void add(Step step);

  // Whether pieces come out as bytes that still are to be mapped to the byte-level alphabet, because a ByteLevel
  // step came last.
  bool yields_bytes() const { return !steps_.empty() && std::holds_alternative<ByteLevel>(steps_.back()); }

  // Where all steps together only cut, and cut as a well-known rule does, that rule: pieces are its words, and bytes.
  std::optional<WordRule> word_rule() const;

  // Rewritten text lives in `storage`. No piece is empty.
  void run(Piece input, std::deque<std::string>& storage, std::vector<Piece>& pieces) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace thimble
