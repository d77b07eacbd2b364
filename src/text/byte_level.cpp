#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace thimble {
namespace {

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int, 324> bytes;  // by code point; -1 where none

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 256;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char32_t c = stands_for_itself(byte) ? byte : next++;
      characters[byte] = to_utf8(c);
      bytes[c] = static_cast<int>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string_view byte_level_character(unsigned char byte) { return alphabet().characters[byte]; }

std::string bytes_to_byte_level(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  append_byte_level(bytes, out);
  return out;
}

void append_byte_level(std::string_view bytes, std::string& out) {
  const Alphabet& known = alphabet();
  for (const char byte : bytes) out += known.characters[static_cast<unsigned char>(byte)];
}

std::optional<std::string> byte_level_to_bytes(std::string_view token) {
  std::string out;
  return append_bytes(token, out) ? std::optional(std::move(out)) : std::nullopt;
}

bool append_bytes(std::string_view token, std::string& out) {
  const Alphabet& known = alphabet();
  const size_t before = out.size();
  out.resize(before + token.size());  // at most
  char* to = out.data() + before;
  for (size_t at = 0; at < token.size();) {
    const auto lead = static_cast<unsigned char>(token[at]);
    char32_t c = lead;
    if (lead < 0x80) {
      ++at;
    } else {
      c = decode_utf8(token, at);
    }
    if (c >= known.bytes.size() || known.bytes[c] < 0) {
      out.resize(before);
      return false;
    }
    *to++ = static_cast<char>(known.bytes[c]);
  }
  out.resize(static_cast<size_t>(to - out.data()));
  return true;
}

}  // namespace thimble
