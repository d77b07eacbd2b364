#pragma once

#include <span>
#include <string_view>

namespace thimble {

// Characters that Unicode 15 and 16 added. Hugging Face's tokenizers know them (Oniguruma, Unicode 16), the
// PCRE2 of Debian 12 (Unicode 14) does not; patterns run on text that holds one are extended by this table.
struct UnicodeAddition {
  char32_t first, last;
  const char* category;  // general category, "Lu"
};

// In ascending order.
std::span<const UnicodeAddition> unicode_additions();

// A character's category where it is one of them, else nullptr.
const char* unicode_addition_category(char32_t character);

// Whether valid UTF-8 holds one of them.
bool has_unicode_additions(std::string_view text);

}  // namespace thimble
