#include "text/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "core/error.h"
#include "text/byte_level.h"
#include "text/normalizer_tables.h"
#include "text/text_hash.h"
#include "text/utf8.h"

namespace thimble {
namespace {

// The first character at or behind `at` beyond ASCII; the text's size where there is none.
size_t find_beyond_ascii(std::string_view text, size_t at) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  while (at + 8 <= text.size() && (load_bytes(text.data() + at, 8) & kHighBits) == 0) at += 8;
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

void normalize_known(utf8proc_option_t options, std::string_view text, std::string& out) {
  if (text.empty()) return;
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                               static_cast<utf8proc_ssize_t>(text.size()), &raw, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> guard(raw, std::free);
  if (length < 0) throw Error(std::string("cannot normalise the text: ") + utf8proc_errmsg(length));
  out.append(reinterpret_cast<const char*>(raw), static_cast<size_t>(length));
}

void normalize_stretch(Normalizer::Form form, std::string_view text, std::string& out) {
  using Form = Normalizer::Form;
  const bool compose = form == Form::kNfc || form == Form::kNfkc;
  const bool compatible = form == Form::kNfkc || form == Form::kNfkd;
  const auto options = static_cast<utf8proc_option_t>(
      UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatible ? UTF8PROC_COMPAT : 0));
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (!is_new_to_normal_forms(decode_utf8(text, at))) continue;
    normalize_known(options, text.substr(begin, start - begin), out);
    out += text.substr(start, at - start);
    begin = at;
  }
  normalize_known(options, text.substr(begin), out);
}

// No form changes ASCII, and none joins an ASCII character to what is before it. So only stretches of others are
// normalised, each with the ASCII character before it, which a mark may join.
std::string normalize(Normalizer::Form form, std::string text) {
  size_t next = find_beyond_ascii(text, 0);
  if (next == text.size()) return text;
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); next = find_beyond_ascii(text, at)) {
    const size_t begin = next == text.size() ? next : next - (next > at);
    out.append(text, at, begin - at);
    at = next;
    while (at < text.size() && static_cast<unsigned char>(text[at]) >= 0x80) ++at;
    if (begin < at) normalize_stretch(form, std::string_view(text).substr(begin, at - begin), out);
  }
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode_utf8(text, at);
    if (c < 0x80) {
      out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    } else if (c == 0x130) {
      out += "i\xCC\x87";  // the one character whose small form is two
    } else {
      append_utf8(out, lowercase_of(c));
    }
  }
  return out;
}

std::string strip(const Normalizer::Strip& sides, std::string_view text) {
  while (sides.left && !text.empty()) {
    size_t at = 0;
    if (!is_white_space(decode_utf8(text, at))) break;
    text.remove_prefix(at);
  }
  while (sides.right && !text.empty()) {
    const size_t start = previous_utf8(text, text.size());
    size_t at = start;
    if (!is_white_space(decode_utf8(text, at))) break;
    text.remove_suffix(text.size() - start);
  }
  return std::string(text);
}

std::string strip_accents(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode_utf8(text, at);
    if (!is_combining_mark(c)) append_utf8(out, c);
  }
  return out;
}

// More than any real rewriting adds, and little enough for memory.
size_t most_bytes(size_t input) { return input * 64 + (1 << 16); }

struct Apply {
  std::string text;

  std::string operator()(const Normalizer::Unicode& step) { return normalize(step.form, std::move(text)); }
  std::string operator()(const Normalizer::Lowercase&) { return lowercase(text); }
  std::string operator()(const Normalizer::StripAccents&) { return strip_accents(text); }
  std::string operator()(const Normalizer::Strip& step) { return strip(step, text); }
  std::string operator()(const Normalizer::Replace& step) {
    return step.pattern.replace_all(text, step.content, most_bytes(text.size()));
  }
  std::string operator()(const Normalizer::Prepend& step) { return text.empty() ? text : step.text + text; }
  std::string operator()(const Normalizer::ByteLevel&) { return bytes_to_byte_level(text); }
};

}  // namespace

void Normalizer::add(Step step) { steps_.push_back(std::move(step)); }

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    out = std::visit(Apply{std::move(out)}, step);
    if (out.size() > most_bytes(text.size()))
      throw Error("the tokenizer's normalizer makes the text far too long; restore its tokenizer.json");
  }
  return out;
}

}  // namespace thimble
