#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace thimble {

// How a sequence of bytes begins, read as UTF-8.
struct Utf8Step {
  size_t length;    // bytes of the character, or of the longest part of one that breaks off
  bool valid;       // a whole character
  bool unfinished;  // not valid, but more bytes could make it so (the text ends here)
};

// Looks at the first character of `text`, which must not be empty.
Utf8Step utf8_step(std::string_view text);

// Decodes the character of valid UTF-8 at `at` and moves `at` behind it.
char32_t decode_utf8(std::string_view text, size_t& at);

// The start of the character that ends before `at` (> 0) in valid UTF-8.
size_t previous_utf8(std::string_view text, size_t at);

void append_utf8(std::string& out, char32_t character);
std::string to_utf8(char32_t character);

// Unicode's White_Space, which is what Rust and Hugging Face strip.
bool is_white_space(char32_t character);

bool is_valid_utf8(std::string_view text);

// Puts U+FFFD for every maximal part that is no UTF-8: what Python's bytes.decode("utf-8", "replace"), Rust's
// from_utf8_lossy and browsers do (Unicode 3.9, "substitution of maximal subparts").
std::string replace_invalid_utf8(std::string_view bytes);

}  // namespace thimble
