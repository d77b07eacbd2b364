#include "text/bpe.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>

#include "core/error.h"
#include "text/byte_level.h"
#include "text/utf8.h"
#include "text/word_cache.h"

namespace thimble {
namespace {

constexpr char32_t kCommon = 0x3000;
constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581 "▁", SentencePiece's space

std::atomic<uint32_t> next_serial{1};

}  // namespace

Bpe::Bpe(const std::vector<std::string>& tokens, const std::vector<int32_t>& candidates, Options options)
    : options_(std::move(options)), common_(kCommon, -1), first_extra_(static_cast<int32_t>(tokens.size())) {
  size_t bytes = 0;
  for (const int32_t id : candidates) bytes += tokens[id].size();
  ids_.reserve(candidates.size(), bytes);
  whole_ = std::make_unique<std::atomic<Whole>[]>(tokens.size());
  byte_symbols_.fill(-1);
  byte_tokens_.fill(-1);
  for (const int32_t id : candidates) {
    const std::string& token = tokens[id];
    if (token.empty() || !ids_.add(token, id)) continue;
    size_t end = 0;
    const char32_t first = decode_utf8(token, end);
    if (end != token.size()) continue;
    if (first < kCommon) {
      common_[first] = id;
    } else {
      rare_.emplace(first, id);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_symbols_[byte] = id_of(byte_level_character(static_cast<unsigned char>(byte)));
    byte_tokens_[byte] = id_of(fmt::format("<0x{:02X}>", byte));
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right) {
  const std::string& prefix = options_.continuing_subword_prefix;
  const std::string_view rest = right.starts_with(prefix) ? right.substr(prefix.size()) : right;
  merged_.assign(left).append(rest);
  const int32_t a = id_of(left), b = id_of(right), c = ids_.find(merged_, last_merged_);
  if (a < 0 || b < 0 || c < 0)
    throw Error(fmt::format("tokenizer: merge {} ('{}' + '{}') names '{}', which is not in the vocabulary", next_rank_,
                            left, right,
                            a < 0   ? left
                            : b < 0 ? right
                                    : std::string_view(merged_)));
  merges_.add(a, b, {next_rank_++, c});
}

int32_t Bpe::character_symbol(std::string_view character) {
  size_t at = 0;
  const char32_t c = decode_utf8(character, at);
  if (const int32_t known = symbol_of(c); known >= 0) return known;
  const int32_t symbol = first_extra_ + static_cast<int32_t>(extra_.size());
  extra_.emplace_back(character);
  if (c < kCommon) {
    common_[c] = symbol;
  } else {
    rare_.emplace(c, symbol);
  }
  return symbol;
}

void Bpe::add_scored_merges(const std::vector<float>& scores) {
  assert(scores.size() == static_cast<size_t>(first_extra_));
  // Equal scores share a rank, so that the leftmost goes first.
  std::vector<float> sorted;
  ids_.for_each([&](std::string_view, int32_t id) { sorted.push_back(scores[id]); });
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());

  std::vector<bool> is_byte(scores.size());
  for (const int32_t id : byte_tokens_)
    if (id >= 0) is_byte[id] = true;
  ids_.for_each([&](std::string_view token, int32_t id) {
    if (is_byte[id]) return;
    const auto place = std::lower_bound(sorted.begin(), sorted.end(), scores[id], std::greater<>());
    const auto rank = static_cast<uint32_t>(place - sorted.begin());
    size_t first_end = 0;
    decode_utf8(token, first_end);
    for (size_t cut = first_end; cut < token.size(); decode_utf8(token, cut)) {
      const std::string_view left = token.substr(0, cut), right = token.substr(cut);
      int32_t a = id_of(left), b = id_of(right);
      // A character may be part of tokens without being one itself.
      size_t right_end = 0;
      decode_utf8(right, right_end);
      if (a < 0 && cut == first_end) a = character_symbol(left);
      if (b < 0 && right_end == right.size()) b = character_symbol(right);
      if (a >= 0 && b >= 0) merges_.add(a, b, {rank, id});
    }
  });
}

void Bpe::finish() {
  serial_ = next_serial++;
  const bool affixes = !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty();
  plain_bytes_ = !affixes;
  // Where no token holds a mark behind another character, merges never cross the start of a word: pieces can be cut
  // there, which changes nothing but lets the word cache work.
  cut_at_marks_ = id_of(kMark) >= 0 && !affixes && !options_.ignore_merges;
  if (!cut_at_marks_) return;
  ids_.for_each([&](std::string_view token, int32_t) {
    for (size_t at = token.find(kMark, 1); at != std::string_view::npos; at = token.find(kMark, at + 1))
      if (token.compare(at - std::min(at, kMark.size()), kMark.size(), kMark) != 0) cut_at_marks_ = false;
  });
}

int32_t Bpe::symbol_of(char32_t character) const {
  if (character < kCommon) return common_[character];
  const auto found = rare_.find(character);
  return found == rare_.end() ? -1 : found->second;
}

// A character without a symbol. The order in which an unknown token that is still being fused comes behind byte
// tokens is Hugging Face's.
void Bpe::append_unknown(std::string_view character, bool& pending_unk, std::vector<int32_t>& symbols) const {
  if (options_.byte_fallback) {
    const bool all = std::all_of(character.begin(), character.end(),
                                 [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)] >= 0; });
    if (all) {
      for (const char byte : character) symbols.push_back(byte_tokens_[static_cast<unsigned char>(byte)]);
      return;
    }
  }
  if (options_.unk < 0) return;
  if (pending_unk && !options_.fuse_unk) symbols.push_back(options_.unk);
  pending_unk = true;
}

void Bpe::initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
  const bool affixes = !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty();
  bool pending_unk = false;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    const char32_t c = decode_utf8(word, at);
    int32_t symbol;
    std::string affixed;
    std::string_view text = word.substr(begin, at - begin);
    if (affixes) {
      if (begin > 0) affixed = options_.continuing_subword_prefix;
      affixed += text;
      if (at == word.size()) affixed += options_.end_of_word_suffix;
      text = affixed;
      symbol = id_of(text);
    } else {
      symbol = symbol_of(c);
    }
    if (symbol < 0) {
      append_unknown(text, pending_unk, symbols);
      continue;
    }
    if (pending_unk) symbols.push_back(options_.unk);
    pending_unk = false;
    symbols.push_back(symbol);
  }
  if (pending_unk) symbols.push_back(options_.unk);
}

// False where a byte has no symbol.
bool Bpe::initial_bytes(std::string_view word, std::vector<int32_t>& symbols) const {
  symbols.resize(word.size());
  int32_t all = 0;
  for (size_t i = 0; i < word.size(); ++i) all |= symbols[i] = byte_symbols_[static_cast<unsigned char>(word[i])];
  return all >= 0;
}

void Bpe::append_symbol(int32_t symbol, std::vector<int32_t>& out) const {
  if (symbol < first_extra_) {
    out.push_back(symbol);
    return;
  }
  bool pending_unk = false;
  append_unknown(extra_[symbol - first_extra_], pending_unk, out);
  if (pending_unk) out.push_back(options_.unk);
}

void Bpe::merge_word(std::string_view word, std::string_view spelled, bool bytes, std::vector<int32_t>& out) const {
  thread_local std::vector<int32_t> symbols;
  if (!bytes || !plain_bytes_ || !initial_bytes(word, symbols)) {
    symbols.clear();
    initial_symbols(spelled, symbols);
  }
  merge_symbols(merges_, symbols);
  for (const int32_t symbol : symbols) append_symbol(symbol, out);
}

void Bpe::encode_word(std::string_view word, bool bytes, std::vector<int32_t>& out) const {
  thread_local std::string mapped;
  std::string_view spelled = word;
  if (bytes) {
    mapped.clear();
    append_byte_level(word, mapped);
    spelled = mapped;
  }
  const int32_t id = id_of(spelled);
  if (id < 0) return merge_word(word, spelled, bytes, out);
  const Whole known = whole_[id].load(std::memory_order_relaxed);
  if (known == Whole::kYes || options_.ignore_merges) return out.push_back(id);
  const size_t before = out.size();
  merge_word(word, spelled, bytes, out);
  if (known == Whole::kUnknown) {
    const bool whole = out.size() == before + 1 && out.back() == id;
    whole_[id].store(whole ? Whole::kYes : Whole::kNo, std::memory_order_relaxed);
  }
}

void Bpe::encode_piece(std::string_view piece, bool bytes, std::vector<int32_t>& out) const {
  if (piece.size() > WordCache::kBytes) return encode_word(piece, bytes, out);
  const WordCache::Key key = WordCache::key_of(piece.data(), piece.size(), piece.size());
  WordCache::Slot& slot = WordCache::of_this_thread().slot(serial_, key, piece.size());
  if (slot.holds(serial_, key, piece.size())) {
    out.insert(out.end(), slot.ids, slot.ids + slot.count);
    return;
  }
  const size_t before = out.size();
  encode_word(piece, bytes, out);
  slot.put(serial_, key, piece.size(), std::span(out).subspan(before));
}

void Bpe::encode_words(std::string_view text, size_t begin, std::span<const size_t> ends,
                       std::vector<int32_t>& out) const {
  assert(serial_ != 0);
  const WordCache& cache = WordCache::of_this_thread();
  // Known words' tokens are collected where each may be copied with the rest of its slot, without asking how many.
  std::array<int32_t, 1024> known;
  size_t count = 0;
  const auto flush = [&] {
    out.insert(out.end(), known.begin(), known.begin() + count);
    count = 0;
  };
  for (size_t i = 0; i < ends.size(); begin = ends[i++]) {
    const size_t size = ends[i] - begin;
    if (size > WordCache::kBytes) {
      flush();
      encode_word(text.substr(begin, size), true, out);
      continue;
    }
    const WordCache::Key key = WordCache::key_of(text.data() + begin, size, text.size() - begin);
    WordCache::Slot& slot = cache.slot(serial_, key, size);
    if (slot.holds(serial_, key, size)) {
      if (count + WordCache::kIds > known.size()) flush();
      std::memcpy(known.data() + count, slot.ids, sizeof slot.ids);
      count += slot.count;
      continue;
    }
    flush();
    const size_t before = out.size();
    encode_word(text.substr(begin, size), true, out);
    slot.put(serial_, key, size, std::span(out).subspan(before));
  }
  flush();
}

void Bpe::encode(std::string_view piece, bool bytes, std::vector<int32_t>& out) const {
  assert(serial_ != 0);
  if (!cut_at_marks_ || bytes) return encode_piece(piece, bytes, out);
  size_t begin = 0, from = 0;
  while (true) {
    const size_t mark = piece.find(kMark, from);
    if (mark == std::string_view::npos) break;
    // A run of marks belongs to the word that it starts.
    size_t run_end = mark + kMark.size();
    while (piece.compare(run_end, kMark.size(), kMark) == 0) run_end += kMark.size();
    if (mark > begin) {
      encode_piece(piece.substr(begin, mark - begin), false, out);
      begin = mark;
    }
    from = run_end;
  }
  if (begin < piece.size()) encode_piece(piece.substr(begin), false, out);
}

}  // namespace thimble
