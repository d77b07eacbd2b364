#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace thimble {

// GPT-2's alphabet (bytes_to_unicode in openai/gpt-2's encoder.py): each byte as one printable character, so that
// vocabularies can be written as text. A space is U+0120 "Ġ", a newline U+010A "Ċ".

// The character that stands for a byte, as UTF-8.
std::string_view byte_level_character(unsigned char byte);
std::string bytes_to_byte_level(std::string_view bytes);
void append_byte_level(std::string_view bytes, std::string& out);

// The bytes that a token of the alphabet stands for; nullopt where a character is not of it.
std::optional<std::string> byte_level_to_bytes(std::string_view token);
// Appends them; false where a character is not of the alphabet, and `out` is then as it was.
bool append_bytes(std::string_view token, std::string& out);

}  // namespace thimble
