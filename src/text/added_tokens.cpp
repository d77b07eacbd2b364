#include "text/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/utf8.h"

namespace thimble {
namespace {

// \w of Rust's regex: letters, marks, decimal numbers, letter numbers, connectors, joiners.
bool is_word(char32_t c) {
  if (c == 0x200C || c == 0x200D) return true;
  if (c >= 0x24B6 && c <= 0x24E9) return true;  // circled letters are alphabetic
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t at = previous_utf8(text, text.size());
  return is_word(decode_utf8(text, at));
}

bool starts_with_word(std::string_view text) {
  size_t at = 0;
  return !text.empty() && is_word(decode_utf8(text, at));
}

size_t white_space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t begin = previous_utf8(text, end);
    size_t at = begin;
    if (!is_white_space(decode_utf8(text, at))) break;
    end = begin;
  }
  return end;
}

size_t white_space_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t at = begin;
    if (!is_white_space(decode_utf8(text, at))) break;
    begin = at;
  }
  return begin;
}

}  // namespace

void AddedTokenFinder::add(const AddedToken& token, std::string content) {
  if (content.empty()) return;
  std::vector<uint32_t>& lengths = lengths_[static_cast<unsigned char>(content[0])];
  if (lengths.empty()) first_bytes_ += content[0];
  const auto length = static_cast<uint32_t>(content.size());
  const auto place = std::lower_bound(lengths.begin(), lengths.end(), length, std::greater<>());
  if (place == lengths.end() || *place != length) lengths.insert(place, length);
  pairs_.resize(1 << 16);
  const size_t first = static_cast<unsigned char>(content[0]) * size_t{256};
  for (size_t second = 0; second < 256; ++second)
    if (length == 1 || second == static_cast<unsigned char>(content[1])) pairs_[first + second] = true;
  if (!by_content_.add(content, static_cast<int32_t>(tokens_.size()))) return;
  tokens_.push_back(token);
  all_special_ = all_special_ && token.special;
}

size_t AddedTokenFinder::next_start(std::string_view text, size_t at) const {
  // Mostly all tokens begin with '<', which memchr finds faster than anything written here would.
  const auto is_start = [&](size_t i) { return !lengths_[static_cast<unsigned char>(text[i])].empty(); };
  while (at < text.size()) {
    if (first_bytes_.size() == 1) {
      at = std::min(text.find(first_bytes_[0], at), text.size());
    } else {
      while (at < text.size() && !is_start(at)) ++at;
    }
    if (at + 1 >= text.size()) break;
    const auto first = static_cast<unsigned char>(text[at]), second = static_cast<unsigned char>(text[at + 1]);
    if (pairs_[first * size_t{256} + second]) break;
    ++at;
  }
  return at;
}

const AddedToken* AddedTokenFinder::match_at(std::string_view text, size_t at, size_t& length) const {
  for (const uint32_t candidate : lengths_[static_cast<unsigned char>(text[at])]) {
    if (candidate > text.size() - at) continue;
    const int32_t found = by_content_.find(text.substr(at, candidate));
    if (found < 0) continue;
    length = candidate;
    return &tokens_[static_cast<size_t>(found)];
  }
  return nullptr;
}

void AddedTokenFinder::split(std::string_view text, bool parse_special, std::vector<Part>& parts) const {
  size_t done = 0;  // the end of the last token taken, its stripped white space included
  const bool none = tokens_.empty() || (all_special_ && !parse_special);
  for (size_t at = 0; !none && (at = next_start(text, at)) < text.size();) {
    size_t length = 0;
    const AddedToken* token = match_at(text, at, length);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + length;
    at = end;  // what is refused below is not searched again
    if (token->special && !parse_special) continue;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token->lstrip) begin = std::max(white_space_before(text, begin), done);
    if (token->rstrip) end = white_space_after(text, end);
    if (done < begin) parts.push_back({-1, done, begin});
    parts.push_back({token->id, begin, end});
    done = end;
  }
  if (done < text.size()) parts.push_back({-1, done, text.size()});
}

}  // namespace thimble
