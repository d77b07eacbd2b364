#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/vocabulary.h"

namespace thimble {

struct EncodeOptions {
  bool add_special = false;    // begin- and end-of-sequence tokens, as the model wants them
  bool parse_special = false;  // control tokens ("<|im_end|>") written in the text are those tokens; otherwise they
                               // are text, which is what text from outside must be
  // Where text from outside stands inside a text whose control tokens are parsed: a mark that is put into the control
  // tokens' names that it holds (Tokenizer::shielded), so that they are text. Encoding takes the mark out. Empty: none.
  std::string_view shield = {};
};

// Turns text into tokens and back, exactly as Hugging Face's `tokenizers` does with the same tokenizer.json.
// A value: copies share one immutable state, and any number of threads may use it at once.
//
// Bytes that are not UTF-8 become U+FFFD before anything else, as after Python's bytes.decode("utf-8", "replace").
// Truncation and padding in tokenizer.json are left to the caller, as transformers does.
class Tokenizer {
 public:
  // Throws Error that names what is wrong, unknown or unsupported in the vocabulary.
  static Tokenizer from(const Vocabulary& vocabulary);

  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;
  // Ids that are no token are passed over.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // One more than the highest id.
  int32_t vocab_size() const;
  // The bytes that a token adds to a text, which need not be whole characters; for a special token its name. Empty
  // for ids that are no token.
  const std::string& token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;  // a control token
  // The id of a token as the vocabulary spells it ("Ġthe", "<|im_end|>").
  std::optional<int32_t> id_of(std::string_view token) const;

  // `text` with `mark` put into every control token's name. EncodeOptions::shield says what for.
  std::string shielded(std::string_view text, std::string_view mark) const;

  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;
  std::optional<int32_t> unk() const;
  std::optional<int32_t> pad() const;
  // Every id at which an answer ends, ascending: end of sequence, and the end-of-turn tokens that the vocabulary has.
  const std::vector<int32_t>& end_ids() const;
  bool ends_answer(int32_t id) const;

 private:
  friend class StreamDecoder;
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// Decodes token by token. What push() and flush() return, one after the other, is decode()'s text; no part ends
// inside a character. Runs of byte tokens ("<0xF0>") come out when they end.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = false);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();

  std::string push(int32_t id);
  std::string flush();  // the rest; starts over

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace thimble
