#pragma once

#include <string>
#include <string_view>

namespace thimble {

// Trimmed, Unicode NFC and case folded: how strings of arguments are compared. Broken UTF-8 is folded as ASCII only.
std::string fold_case(std::string_view text);

// Only letters and digits, folded, with one space between words: how two requests are found to be the same. Marks
// and symbols that carry meaning alone (a request of "?" or of an emoji) are kept where nothing else remains.
std::string fold_words(std::string_view text);

}  // namespace thimble
