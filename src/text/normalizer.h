#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/pattern.h"

namespace thimble {

// What tokenizer.json calls a normalizer: a list of rewritings, applied in order to each stretch of text between
// added tokens, before it is split.
class Normalizer {
 public:
  enum class Form { kNfc, kNfd, kNfkc, kNfkd };
  struct Unicode {
    Form form;
  };
  struct Lowercase {};
  struct StripAccents {};  // removes combining marks
  struct Strip {
    bool left, right;
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct Prepend {  // not to an empty text
    std::string text;
  };
  struct ByteLevel {};  // every byte becomes its character of the byte-level alphabet
  using Step = std::variant<Unicode, Lowercase, StripAccents, Strip, Replace, Prepend, ByteLevel>;

  void add(Step step);
  bool empty() const { return steps_.empty(); }
  // `text` is valid UTF-8, and so is the result.
  std::string apply(std::string_view text) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace thimble
