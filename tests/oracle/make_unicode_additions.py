"""Prints the table of src/text/unicode_additions.cpp: characters unassigned in the Unicode 14 of PCRE2 10.42
(and of Python 3.11's unicodedata) that Hugging Face's regular expressions give a general category."""

import unicodedata

from tokenizers import Regex, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Cf".split()


def main():
    assert unicodedata.unidata_version == "14.0.0", "run this with Python 3.11"
    unassigned = [c for c in range(0x110000) if unicodedata.category(chr(c)) == "Cn"]
    category = {}
    for name in CATEGORIES:
        split = pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed")
        category.update({c: name for c in unassigned if not split.pre_tokenize_str(chr(c))})
    ranges = []
    for c in sorted(category):
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == category[c]:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, category[c]])
    for first, last, name in ranges:
        print('    {0x%x, 0x%x, "%s"},' % (first, last, name))


if __name__ == "__main__":
    main()
