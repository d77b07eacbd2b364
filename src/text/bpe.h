#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/merge_table.h"
#include "text/token_table.h"

namespace thimble {

// Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) of one piece of text, as Hugging Face's tokenizers
// and SentencePiece do it: characters become symbols, and the neighbouring pair of the lowest rank merges, the
// leftmost first, until none is left. Immutable after building.
class Bpe {
 public:
  struct Options {
    std::string continuing_subword_prefix, end_of_word_suffix;
    int32_t unk = -1;            // for characters without a symbol; -1: they are dropped
    bool fuse_unk = false;       // several in a row give one
    bool byte_fallback = false;  // such characters become tokens "<0x0A>", where all their bytes have one
    bool ignore_merges = false;  // a piece that is a token is that token
  };

  // `tokens` is the vocabulary by id. Those that text may become are named by `candidates`: no control tokens.
  Bpe(const std::vector<std::string>& tokens, const std::vector<int32_t>& candidates, Options options);

  // Room for so many merges.
  void reserve_merges(size_t count) { merges_.reserve(count); }

  // Adds a merge by its parts' text, in order of rank. Throws Error where a part or the result is no token.
  void add_merge(std::string_view left, std::string_view right);

  // SentencePiece's models carry scores in place of merges: any two neighbours whose text together is a token merge,
  // the highest score first. `scores` is by id.
  void add_scored_merges(const std::vector<float>& scores);

  // Call once all merges are there.
  void finish();

  // Appends the tokens of a piece (valid UTF-8). `bytes` says that the piece holds bytes still to be mapped to the
  // byte-level alphabet.
  void encode(std::string_view piece, bool bytes, std::vector<int32_t>& out) const;
  // The same for the many words of a text, which hold bytes: from `begin` on each ends where `ends` says.
  void encode_words(std::string_view text, size_t begin, std::span<const size_t> ends, std::vector<int32_t>& out) const;

  int32_t id_of(std::string_view token) const { return ids_.find(token); }  // -1 where it is none

 private:
  void encode_piece(std::string_view piece, bool bytes, std::vector<int32_t>& out) const;
  void encode_word(std::string_view word, bool bytes, std::vector<int32_t>& out) const;
  void merge_word(std::string_view word, std::string_view spelled, bool bytes, std::vector<int32_t>& out) const;
  void initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
  bool initial_bytes(std::string_view word, std::vector<int32_t>& symbols) const;
  void append_unknown(std::string_view character, bool& pending_unk, std::vector<int32_t>& symbols) const;
  int32_t symbol_of(char32_t character) const;
  int32_t character_symbol(std::string_view character);
  void append_symbol(int32_t symbol, std::vector<int32_t>& out) const;

  Options options_;
  TokenTable ids_;
  MergeTable merges_;
  // Whether the text of a token becomes just that token, by id. Nearly always, but only merging it proves it, and
  // merging the whole vocabulary would take too long at start: whoever meets such a word first writes down the answer.
  enum class Whole : uint8_t { kUnknown, kYes, kNo };
  std::unique_ptr<std::atomic<Whole>[]> whole_;
  std::string merged_;  // add_merge's scratch
  uint32_t next_rank_ = 0;
  size_t last_merged_ = 0;                      // find's hint: mostly tokens come in the order of their merges
  std::vector<int32_t> common_;                 // symbol of a character below kCommon; -1: none
  std::unordered_map<char32_t, int32_t> rare_;  // the same above
  std::array<int32_t, 256> byte_symbols_;       // symbol of a byte of the byte-level alphabet; -1: none
  std::array<int32_t, 256> byte_tokens_;        // "<0x0A>"; -1: none
  int32_t first_extra_ = 0;                     // symbols from here on are characters that are no token
  std::vector<std::string> extra_;
  bool plain_bytes_ = false;   // bytes that have symbols need nothing but merging
  bool cut_at_marks_ = false;  // pieces may be cut before a SentencePiece mark
  uint32_t serial_ = 0;        // tells this vocabulary's entries in the word cache
};

// Merges symbols in place. Exposed for tests and benchmarks.
void merge_symbols(const MergeTable& merges, std::vector<int32_t>& symbols);

}  // namespace thimble
