#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <deque>

#include "core/error.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"
#include "text/word_rule.h"

namespace thimble {
namespace {

// Names under which models end an answer or a turn.
constexpr std::array<std::string_view, 16> kEndNames = {"<|im_end|>",
                                                        "<|eot_id|>",
                                                        "<|eom_id|>",
                                                        "<|end|>",
                                                        "<|eot|>",
                                                        "<|endoftext|>",
                                                        "<|return|>",
                                                        "<|call|>",
                                                        "<EOT>",
                                                        "<|end_of_text|>",
                                                        "<end_of_turn>",
                                                        "<|end_of_turn|>",
                                                        "<turn|>",
                                                        "<end_of_utterance>",
                                                        "<|endofturn|>",
                                                        "<\xEF\xBD\x9C"
                                                        "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

// What a thread keeps for the next text.
constexpr size_t kKeptPieces = 1 << 18;

// Words that are cut and looked up at a time: their ends stay in the fastest cache.
constexpr size_t kWordsAtOnce = 256;

}  // namespace

struct Tokenizer::State {
  TokenizerParts parts;
  std::vector<std::string> bytes;    // token_bytes by id
  std::vector<bool> special;         // by id
  TokenTable added_ids;              // of added tokens' contents; the model knows the others
  AddedTokenFinder raw, normalized;  // added tokens sought before and after normalising
  std::vector<int32_t> end_ids;
  std::optional<WordRule> word_rule;  // which all pre-tokenizing is, where it is one
  bool yields_bytes = false;
  bool joins_bytes = false;  // decoding is nothing but joining `bytes`

  State(TokenizerParts from, const Vocabulary& vocabulary) : parts(std::move(from)) {
    const size_t n = parts.tokens.size();
    bytes.resize(n);
    special.resize(n);
    for (const AddedToken& token : parts.added) {
      if (!token.content.empty()) added_ids.add(token.content, token.id);
      special[token.id] = token.special;
      if (token.normalized) {
        const std::string sought = parts.normalizer.apply(token.content);
        normalized.add(token, sought);
        // As in Hugging Face's tokenizers, what was found is also what is decoded. Special tokens keep their names, by
        // which they are known everywhere else.
        if (!token.special && !sought.empty()) parts.tokens[token.id] = sought;
      } else {
        raw.add(token, token.content);
      }
    }
    for (size_t id = 0; id < n; ++id)
      if (!parts.tokens[id].empty())
        bytes[id] = special[id] ? parts.tokens[id] : parts.decoder.bytes_of(parts.tokens[id]);
    word_rule = parts.pre_tokenizer.word_rule();
    yields_bytes = parts.pre_tokenizer.yields_bytes();
    joins_bytes = parts.decoder.joins_bytes();
    // A stream decodes special tokens' names like any other text.
    for (const AddedToken& token : parts.added)
      joins_bytes = joins_bytes && bytes[token.id] == parts.decoder.bytes_of(parts.tokens[token.id]);
    find_end_ids(vocabulary);
  }

  void find_end_ids(const Vocabulary& vocabulary) {
    const auto add = [&](int32_t id) {
      if (id >= 0 && static_cast<size_t>(id) < parts.tokens.size()) end_ids.push_back(id);
    };
    if (parts.eos) add(*parts.eos);
    for (const int id : vocabulary.end_ids) add(id);
    // Where a model has both <|return|> and <|call|>, <|end|> only ends a message (OpenAI's harmony form).
    const bool harmony = id_of("<|return|>") >= 0 && id_of("<|call|>") >= 0;
    for (const std::string_view name : kEndNames) {
      const int32_t id = id_of(name);
      if (id >= 0 && special[id] && !(harmony && name == "<|end|>")) add(id);
    }
    std::sort(end_ids.begin(), end_ids.end());
    end_ids.erase(std::unique(end_ids.begin(), end_ids.end()), end_ids.end());
  }

  // The lower one where a text is an added token and another; -1 where it is none.
  int32_t id_of(std::string_view token) const {
    const int32_t known = parts.model->id_of(token), added = added_ids.find(token);
    return known < 0 || (added >= 0 && added < known) ? added : known;
  }

  bool is_token(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < parts.tokens.size() && !parts.tokens[id].empty();
  }

  void encode_text(Piece text, std::vector<int32_t>& out) const {
    if (word_rule) return encode_words(text.text, out);
    thread_local std::vector<Piece> pieces;
    thread_local std::deque<std::string> storage;
    pieces.clear();
    storage.clear();
    parts.pre_tokenizer.run(text, storage, pieces);
    for (const Piece& piece : pieces) parts.model->encode(piece.text, yields_bytes, out);
    if (pieces.capacity() > kKeptPieces) pieces = {};
  }

  void encode_words(std::string_view text, std::vector<int32_t>& out) const {
    std::array<size_t, kWordsAtOnce> ends;
    for (size_t at = 0; at < text.size();) {
      const size_t words = split_words(*word_rule, text, at, ends);
      parts.model->encode_words(text, at, std::span(ends).first(words), out);
      at = ends[words - 1];
    }
  }

  // Text between added tokens that are sought before normalising.
  void encode_stretch(std::string_view text, bool at_start, bool parse_special, std::vector<int32_t>& out) const {
    std::string rewritten;
    if (!parts.normalizer.empty()) text = rewritten = parts.normalizer.apply(text);
    if (normalized.empty()) return encode_text({text, at_start}, out);
    std::vector<AddedTokenFinder::Part> found;
    normalized.split(text, parse_special, found);
    for (const AddedTokenFinder::Part& part : found) {
      if (part.id >= 0) {
        out.push_back(part.id);
      } else {
        encode_text({text.substr(part.begin, part.end - part.begin), at_start && part.begin == 0}, out);
      }
    }
  }
};

namespace {

std::string without(std::string_view text, std::string_view mark) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(mark, at), text.size());
    out += text.substr(at, end - at);
    at = end + mark.size();
  }
  return out;
}

}  // namespace

Tokenizer Tokenizer::from(const Vocabulary& vocabulary) {
  if (vocabulary.tokenizer_json.empty() && vocabulary.tokens.empty())
    throw Error("the model has no tokenizer: neither a tokenizer.json nor GGUF's tokenizer.ggml.tokens");
  TokenizerParts parts =
      vocabulary.tokenizer_json.empty() ? read_gguf_tokenizer(vocabulary) : read_tokenizer_json(vocabulary);
  return Tokenizer(std::make_shared<const State>(std::move(parts), vocabulary));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::string mended;
  if (!is_valid_utf8(text)) text = mended = replace_invalid_utf8(text);
  // Grown once a thread, so that a text costs no more memory than what is returned.
  thread_local std::vector<int32_t> out;
  thread_local std::vector<AddedTokenFinder::Part> found;
  out.clear();
  out.reserve(text.size() / 3 + 8);
  found.clear();
  if (options.add_special) out = state_->parts.prefix;
  state_->raw.split(text, options.parse_special, found);
  for (const AddedTokenFinder::Part& part : found) {
    if (part.id >= 0) {
      out.push_back(part.id);
    } else {
      const bool at_start = part.begin == 0;
      const std::string_view stretch = text.substr(part.begin, part.end - part.begin);
      if (options.shield.empty() || stretch.find(options.shield) == std::string_view::npos)
        state_->encode_stretch(stretch, at_start, options.parse_special, out);
      else
        state_->encode_stretch(without(stretch, options.shield), at_start, false, out);
    }
  }
  if (options.add_special) out.insert(out.end(), state_->parts.suffix.begin(), state_->parts.suffix.end());
  std::vector<int32_t> tokens(out.begin(), out.end());
  if (out.capacity() > kKeptPieces) out = {};
  if (found.capacity() > kKeptPieces) found = {};
  return tokens;
}

std::string Tokenizer::shielded(std::string_view text, std::string_view mark) const {
  std::string out = is_valid_utf8(text) ? std::string(text) : replace_invalid_utf8(text);
  for (const AddedTokenFinder* finder : {&state_->raw, &state_->normalized}) {
    std::vector<AddedTokenFinder::Part> found;
    finder->split(out, true, found);
    std::string marked;
    for (const AddedTokenFinder::Part& part : found) {
      const std::string_view piece = std::string_view(out).substr(part.begin, part.end - part.begin);
      const bool control = part.id >= 0 && state_->special[static_cast<size_t>(part.id)];
      for (size_t i = 0; i < piece.size(); ++i) {
        if (control && i > 0 && (piece[i] & 0xc0) != 0x80) marked += mark;
        marked += piece[i];
      }
    }
    out = std::move(marked);
  }
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  if (state_->joins_bytes) {
    for (const int32_t id : ids)
      if (id >= 0 && static_cast<size_t>(id) < state_->bytes.size() && !(skip_special && state_->special[id]))
        out += state_->bytes[id];
    return is_valid_utf8(out) ? out : replace_invalid_utf8(out);
  }
  TokenDecoder::Stream stream(state_->parts.decoder);
  for (const int32_t id : ids)
    if (state_->is_token(id) && !(skip_special && state_->special[id])) stream.push(state_->parts.tokens[id], out);
  stream.finish(out);
  return out;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->parts.tokens.size()); }

const std::string& Tokenizer::token_bytes(int32_t id) const {
  static const std::string none;
  return state_->is_token(id) ? state_->bytes[id] : none;
}

bool Tokenizer::is_special(int32_t id) const { return state_->is_token(id) && state_->special[id]; }

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  const int32_t id = state_->id_of(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<int32_t> Tokenizer::bos() const { return state_->parts.bos; }
std::optional<int32_t> Tokenizer::eos() const { return state_->parts.eos; }
std::optional<int32_t> Tokenizer::unk() const { return state_->parts.unk; }
std::optional<int32_t> Tokenizer::pad() const { return state_->parts.pad; }
const std::vector<int32_t>& Tokenizer::end_ids() const { return state_->end_ids; }

bool Tokenizer::ends_answer(int32_t id) const {
  return std::binary_search(state_->end_ids.begin(), state_->end_ids.end(), id);
}

struct StreamDecoder::State {
  Tokenizer tokenizer;
  bool skip_special;
  TokenDecoder::Stream stream;
};

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special) {
  TokenDecoder::Stream stream(tokenizer.state_->parts.decoder);
  state_ = std::make_unique<State>(State{std::move(tokenizer), skip_special, std::move(stream)});
}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(int32_t id) {
  std::string out;
  const Tokenizer::State& tokens = *state_->tokenizer.state_;
  if (tokens.is_token(id) && !(state_->skip_special && tokens.special[id]))
    state_->stream.push(tokens.parts.tokens[id], out);
  return out;
}

std::string StreamDecoder::flush() {
  std::string out;
  state_->stream.finish(out);
  state_->stream = TokenDecoder::Stream(state_->tokenizer.state_->parts.decoder);
  return out;
}

}  // namespace thimble
