#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/pattern.h"

namespace thimble {

// What tokenizer.json calls a decoder: steps that turn tokens, as the vocabulary spells them, into text. They run as
// a stream, and decoding whole answers runs the same stream, so both give the same text.
class TokenDecoder {
 public:
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct ByteFallback {};  // "<0x0A>": runs of them become their bytes' text, or U+FFFD for each byte
  struct Fuse {};          // from here on all tokens are one
  struct Strip {           // up to so many of a character at either end of each token
    std::string content;
    size_t start, stop;
  };
  struct ByteLevel {};
  struct Metaspace {  // the character that stands for a space; the first token's are dropped
    std::string replacement;
    bool drop_first;
  };
  struct WordEnd {  // BPEDecoder: the suffix becomes a space, in the last token nothing
    std::string suffix;
  };
  struct JoinWithSpaces {};  // what no decoder at all does
  using Step = std::variant<Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace, WordEnd, JoinWithSpaces>;

  // Throws Error for steps in an order that has no meaning as a stream.
  void add(Step step);

  // Whether decoding is to put the tokens' bytes (bytes_of) together and to mend what is not UTF-8, nothing else.
  bool joins_bytes() const { return steps_.size() == 1 && std::holds_alternative<ByteLevel>(steps_[0]); }

  // One text being decoded.
  class Stream {
   public:
    explicit Stream(const TokenDecoder& decoder);
    // Appends to `out` what is certain after this token.
    void push(std::string_view token, std::string& out);
    // Appends the rest. Nothing may be pushed after it.
    void finish(std::string& out);

   private:
    struct State {
      std::string held;
      size_t tokens = 0;    // seen so far
      size_t stripped = 0;  // characters taken from the start
      bool at_start = true;
    };
    void feed(size_t step, std::string token, std::string& out);
    void flush(size_t step, std::string& out);
    void feed_fallback(size_t step, State& state, std::string token, std::string& out);
    void flush_fallback(size_t step, State& state, std::string& out);
    void feed_strip(size_t step, const Strip& strip, State& state, std::string token, std::string& out);
    void feed_bytes(size_t step, State& state, std::string token, std::string& out);

    const TokenDecoder* decoder_;
    std::vector<State> states_;
  };

  // The bytes that one token stands for in the middle of a text.
  std::string bytes_of(std::string_view token) const;

 private:
  std::vector<Step> steps_;
  std::vector<bool> fused_;  // by step: what comes in is one token in parts
};

}  // namespace thimble
