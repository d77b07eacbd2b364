#include "data/fold.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

namespace thimble {
namespace {

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

}  // namespace

std::string fold_case(std::string_view text) {
  text = trim(text);
  utf8proc_uint8_t* mapped = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD));
  if (length < 0) return lower_ascii(text);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  return std::string(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

std::string fold_words(std::string_view text) {
  const std::string folded = fold_case(text);
  std::string out;
  bool gap = false;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(folded.data());
  const auto size = static_cast<utf8proc_ssize_t>(folded.size());
  for (utf8proc_ssize_t at = 0; at < size;) {
    utf8proc_int32_t code = 0;
    utf8proc_ssize_t length = utf8proc_iterate(bytes + at, size - at, &code);
    if (length < 1) length = 1, code = -1;
    const auto category = code < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(code);
    const bool word =
        (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO);  // letters, marks, numbers
    if (word) {
      if (gap && !out.empty()) out += ' ';
      out.append(folded, static_cast<size_t>(at), static_cast<size_t>(length));
    }
    // An apostrophe joins: "don't" is one word.
    gap = !word && code != '\'' && code != 0x2019 ? true : (word ? false : gap);
    at += length;
  }
  return out.empty() ? folded : out;
}

}  // namespace thimble
