#pragma once

namespace thimble {

// Where the Unicode tables of Hugging Face's normalizers (9.0 for the normal forms, 17 for lowercase) differ from
// utf8proc's. Made by tests/oracle/make_normalizer_tables.py.

// Characters that the normal forms leave as they are: assigned after Unicode 9, they have no decomposition there and
// never trade places with their neighbours.
bool is_new_to_normal_forms(char32_t character);

// Whether StripAccents removes a character.
bool is_combining_mark(char32_t character);

// The small form of one character, but for U+0130, whose small form is two.
char32_t lowercase_of(char32_t character);

}  // namespace thimble
