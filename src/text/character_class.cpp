#include "text/character_class.h"

#include <utf8proc.h>

#include "text/unicode_additions.h"
#include "text/utf8.h"

namespace thimble::character_class {
namespace {

uint8_t of_category(char first_letter) {
  return first_letter == 'L' ? kLetter : first_letter == 'N' ? kNumber : kOther;
}

}  // namespace

uint8_t beyond_ascii(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_CN: {
      if ((c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6)) return kNewNumber;
      const char* category = unicode_addition_category(c);
      return category == nullptr ? kOther : of_category(category[0]);
    }
    default:
      return is_white_space(c) ? kSpace : kOther;
  }
}

}  // namespace thimble::character_class
