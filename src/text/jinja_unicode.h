#pragma once

#include <cstdint>
#include <string>
#include <string_view>

// Python's str works on code points; the engine keeps UTF-8 (checked where it comes in) and counts code points
// where Python shows them.
namespace thimble::jinja {

char32_t decode_at(std::string_view text, size_t& byte);  // reads one code point and moves byte behind it
void append_utf8(std::string& text, char32_t code);
size_t find_invalid_utf8(std::string_view text);  // byte, or npos where all is well (surrogates are invalid)
size_t count_code_points(std::string_view text);
size_t byte_offset(std::string_view text, size_t code_points);  // clamped to the end

bool is_space(char32_t c);  // str.isspace and \s
bool is_line_break(char32_t c);  // where str.splitlines cuts
bool is_printable(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_word(char32_t c);  // \w
bool is_identifier_start(char32_t c);
bool is_identifier_part(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_cased(char32_t c);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title
std::string swapcase(std::string_view text);
std::string casefold(std::string_view text);

}  // namespace thimble::jinja
