#include "text/utf8.h"

#include <simdjson.h>

#include <cassert>

namespace thimble {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

unsigned byte_at(std::string_view text, size_t at) { return static_cast<unsigned char>(text[at]); }

}  // namespace

Utf8Step utf8_step(std::string_view text) {
  assert(!text.empty());
  const unsigned lead = byte_at(text, 0);
  if (lead < 0x80) return {1, true, false};
  // The second byte's range depends on the first (Unicode, table 3-7); later bytes are 80..BF.
  size_t need = 0;
  unsigned low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    need = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    need = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    need = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false, false};
  }
  for (size_t i = 1; i < need; ++i) {
    if (i == text.size()) return {i, false, true};
    const unsigned byte = byte_at(text, i);
    if (byte < low || byte > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {need, true, false};
}

char32_t decode_utf8(std::string_view text, size_t& at) {
  const unsigned lead = byte_at(text, at);
  if (lead < 0x80) return at += 1, lead;
  const auto next = [&](size_t i) { return static_cast<char32_t>(byte_at(text, at + i) & 0x3F); };
  char32_t character;
  if (lead < 0xE0) {
    character = (lead & 0x1F) << 6 | next(1);
    at += 2;
  } else if (lead < 0xF0) {
    character = (lead & 0x0F) << 12 | next(1) << 6 | next(2);
    at += 3;
  } else {
    character = (lead & 0x07) << 18 | next(1) << 12 | next(2) << 6 | next(3);
    at += 4;
  }
  assert(at <= text.size());
  return character;
}

size_t previous_utf8(std::string_view text, size_t at) {
  assert(at > 0);
  do --at;
  while (at > 0 && (byte_at(text, at) & 0xC0) == 0x80);
  return at;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

std::string to_utf8(char32_t character) {
  std::string out;
  append_utf8(out, character);
  return out;
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_valid_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = utf8_step(bytes);
    out += step.valid ? bytes.substr(0, step.length) : kReplacement;
    bytes.remove_prefix(step.length);
  }
  return out;
}

}  // namespace thimble
