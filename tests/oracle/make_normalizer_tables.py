"""Prints the ranges of src/text/normalizer_tables.cpp: where Hugging Face's normalizers differ from Unicode 15, which
utf8proc 2.8 and the unicodedata of Python 3.12 know; run it with that Python."""

import unicodedata

from tokenizers import normalizers


def ranges(characters):
    out = []
    for c in sorted(characters):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return ", ".join("{0x%x, 0x%x}" % tuple(r) for r in out)


def main():
    every = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    forms = {"NFD": normalizers.NFD(), "NFKD": normalizers.NFKD()}
    new = set()
    for c in every:
        # A mark that is known trades places with U+0334, whose combining class is 1.
        for text in (chr(c), "a" + chr(c) + "\u0334\u0345" + chr(c)):
            if any(f.normalize_str(text) != unicodedata.normalize(name, text) for name, f in forms.items()):
                new.add(c)
    strip = normalizers.StripAccents()
    marks = {c for c in every if unicodedata.category(chr(c))[0] == "M" and strip.normalize_str("a" + chr(c)) != "a"}
    print("new to the normal forms:", ranges(new))
    print("new marks:", ranges(marks))


if __name__ == "__main__":
    main()
