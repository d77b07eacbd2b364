#pragma once

#include <array>
#include <cstdint>

namespace thimble {

// What splitting rules ask of a character: the general category's first letter in Unicode 16, and White_Space.
// Exactly one holds; they are bits, so that sets of them can be asked for.
namespace character_class {

inline constexpr uint8_t kLetter = 1, kNumber = 2, kSpace = 4, kOther = 8;
inline constexpr uint8_t kNewNumber = 16;  // numbers of Unicode 17, which Rust knows and Oniguruma doesn't
inline constexpr uint8_t kBeyondAscii = 128;

// By byte; kBeyondAscii where a byte alone does not say.
inline constexpr std::array<uint8_t, 256> kOfByte = [] {
  std::array<uint8_t, 256> classes{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
    const bool space = byte == ' ' || (byte >= 0x09 && byte <= 0x0D);
    classes[byte] = byte >= 0x80                 ? kBeyondAscii
                    : letter                     ? kLetter
                    : byte >= '0' && byte <= '9' ? kNumber
                    : space                      ? kSpace
                                                 : kOther;
  }
  return classes;
}();

// Of a character from U+0080 on.
uint8_t beyond_ascii(char32_t character);

}  // namespace character_class
}  // namespace thimble
