#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/merge_table.h"

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

  int32_t id_of(std::string_view token) const;  // -1 where it is none

 private:
  void encode_piece(std::string_view piece, bool bytes, std::vector<int32_t>& out) const;
  void encode_word(std::string_view word, bool bytes, std::vector<int32_t>& out) const;
  void initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void initial_bytes(std::string_view word, std::vector<int32_t>& symbols) const;
  void append_unknown(std::string_view character, bool& pending_unk, std::vector<int32_t>& symbols) const;
  int32_t symbol_of(char32_t character) const;
  int32_t character_symbol(std::string_view character);
  void append_symbol(int32_t symbol, std::vector<int32_t>& out) const;

  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  Options options_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  MergeTable merges_;
  uint32_t next_rank_ = 0;
  std::vector<int32_t> common_;                 // symbol of a character below kCommon; -1: none
  std::unordered_map<char32_t, int32_t> rare_;  // the same above
  std::array<int32_t, 256> byte_symbols_;       // symbol of a byte of the byte-level alphabet; -1: none
  std::array<int32_t, 256> byte_tokens_;        // "<0x0A>"; -1: none
  int32_t first_extra_ = 0;                     // symbols from here on are characters that are no token
  std::vector<std::string> extra_;
  bool plain_bytes_ = false;   // every byte has a symbol, and nothing but merging is to be done
  bool cut_at_marks_ = false;  // pieces may be cut before a SentencePiece mark
  uint32_t serial_ = 0;        // tells this vocabulary's entries in the word cache
};

// Merges symbols in place. Exposed for tests and benchmarks.
void merge_symbols(const MergeTable& merges, std::vector<int32_t>& symbols);

}  // namespace thimble
