"""Mixed text to compare tokenizers on: English, code, emoji, many scripts, broken UTF-8, white space, special tokens."""

import random
import unicodedata

ENGLISH = """I've been told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL gone.
The quick brown fox jumps over 13 lazy dogs; 1,000,000.50 times, isn't it?
Please reset my password for j.o'neil+test@example.co.uk by 5 p.m. on 2024-02-29.
Refund £49.99 (order #A-1093) -- the router won't connect to wi-fi since Tuesday!!!
ALL CAPS, Title Case, camelCaseWords, snake_case_words and kebab-case-words...""".split("\n")

CODE = [
    "def f(x: int) -> str:\n\treturn f'{x:>08b}'  # comment\n",
    "for (size_t i = 0; i < n; ++i) { a[i] += b[i] * 0x1F; }\r\n",
    '{"name": "get_weather", "arguments": {"city": "Zürich", "days": 3, "ok": true, "x": null}}',
    "SELECT * FROM t WHERE a <> 'it''s' AND b >= 1e-9;",
    "    if x:\n        y = x\n\n\n    else:\n\tz = 3",
    "<html><body class=\"a b\">&nbsp;&#8364;</body></html>",
    "#include <vector>\n#define X(a) a##_t\nauto s = R\"(raw \\n)\";",
    "$ grep -rnE '^\\s*\\w+' . | awk '{print $1}' >> out.txt 2>&1",
    "A\\B\\C ~/.bashrc `cmd` ${HOME:-/root} %PATH% @user #tag ^_^ |> <|x|>",
]

SCRIPTS = [
    "我想在apple工作1314151天～。日本語のテキスト、カタカナ・ひらがな混じり。한국어 문장입니다.",
    "𠮷野家で𩸽を食べる 㐀㐁 𪚥 ㍿ ㌔ ﾊﾝｶｸ ＦＵＬＬ　ＷＩＤＴＨ １２３",
    "مرحبا بالعالم! كَيْفَ حَالُكَ؟ ١٢٣٤ ـــ شلونك",
    "שָׁלוֹם עולם, נְקֻדּוֹת",
    "नमस्ते दुनिया क्षत्रिय १२३ ক্ষ తెలుగు ಕನ್ನಡ தமிழ்",
    "ภาษาไทยไม่มีช่องว่าง ກຳລັງ កាន់តែពិសេសអាចខលចេញ မြန်မာ",
    "нещо на Български, Ёлка ёжик й Ѣ",
    "Ελληνικά άέήίόύώ ΐΰ Σίσυφος ΣΑΣ",
    "Cửa Việt, Äpfel, naïve façade, Straße, İstanbul ıI, ſtrange Ǆ ǅ ǆ ﬁ ﬂ ﬆ ŉ",
    "e\u0301 a\u0308 o\u0302\u0323 \u1100\u1161\u11a8 \u0344 \u212b \u2126 n\u0303\u0334",
    "x² + y³ = z¼ ½ ¾ ① ② Ⅷ ⅷ ㊀ ٣ ୪ 𝟘𝟙 𝔘𝔫𝔦 ℵ₀",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, ∑∏∫ √2 ≠ ≤ ≥ ± × ÷ ∞ € £ ¥ ₿ ©®™",
    "\u202eright-to-left\u202c \u200bzero\u200bwidth\u200c \u200d\u2060 \ufeffbom soft\u00adhyphen",
]

EMOJI = [
    "🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅ (only emoji that has its own token)",
    "👩‍👩‍👧‍👦👨🏽‍💻🏳️‍🌈🇩🇪🇯🇵1️⃣#️⃣ ❤️‍🔥 🫨🪿🫎 🧑🏻‍🤝‍🧑🏿",
    "🦙.cpp 🦙🦙 😁 ?! \u2764 \u2764\ufe0f ☺ ☹︎ ✂️",
    "🤷‍♀️ ok 👍🏿👍 end🏴󠁧󠁢󠁥󠁮󠁧󠁿",
]

SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2003", "\u2028", "\u2029", "\u0085",
          "\u180e", "\u1680", "\u202f", "\u205f", "\x0b", "\x0c", "\x1c", "\x1f", "\u200b", "▁", "▁▁"]

HARD = ["", " ", "\n", "\x00", "a\x00b", "\ufffd", "\ufffe", "\U0010ffff", "\u0378", "Ġ", "Ċ", "ĠĠ", "<0x0A>", "<0x", "▁",
        "a▁b", "▁a", " ▁ ", "''''''```````\"\"\"\"......!!!!!!??????", "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3",
        "a" * 300, "ab" * 200, " " * 300, "\n" * 100, "é" * 100, "😀" * 60, "=" * 120, "'" * 50 + "s", "aA" * 60, "0" * 100,
        "x" + " " * 255, " " * 17 + "y", "\t \t  \n \n\t", "\r\n\r\n \r", "don't", "DON'T", "Don’t", "'ſ 'K", "it'S'll'VE"]


def broken(rng):
    """Bytes that are not UTF-8 in the ways that decoders differ on."""
    kinds = [b"\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xe2\x82",
             b"\xc3", b"\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x28\xa1", b"\xf0\x28\x8c\xbc", b"\xfe\xfe", b"\xed\xbf\xbf"]
    out = b""
    for _ in range(rng.randint(1, 5)):
        out += rng.choice(["a", " ", "é", "😀", "word", "中", ""]).encode() + rng.choice(kinds)
    return out + rng.choice([b"", b" end", bytes(rng.randrange(256) for _ in range(rng.randint(1, 12)))])


def any_character(rng):
    while True:
        c = rng.choice([rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x20000),
                        rng.randrange(0x110000)])
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def lines(count, seed, english=(), special=()):
    """`count` texts as bytes. `english` are lines of real text, `special` the contents of added tokens."""
    rng = random.Random(seed)
    english = [line for line in english if line.strip()] or ENGLISH
    special = list(special) or ["<|endoftext|>"]
    pool = ENGLISH + CODE + SCRIPTS + EMOJI

    def words(text):
        return text.split(" ")

    def one():
        kind = rng.random()
        if kind < 0.30:
            return rng.choice(english).encode() + rng.choice([b"", b"\n", b" "])
        if kind < 0.40:
            return rng.choice(pool).encode()
        if kind < 0.55:  # pieces of everything
            parts = [rng.choice(words(rng.choice(rng.choice([english, CODE, SCRIPTS, EMOJI])))) for _ in range(rng.randint(1, 12))]
            return rng.choice(SPACES).join(parts).encode()
        if kind < 0.65:  # special tokens amid text
            out = []
            for _ in range(rng.randint(1, 6)):
                token = rng.choice(special)
                if rng.random() < 0.2:
                    token = token[: rng.randint(1, len(token))]
                out += [rng.choice(["", " ", "  ", "\n", "x", "é", "Hello", "\u00a0"]), token]
            return "".join(out + [rng.choice(["", " tail", "\n"])]).encode()
        if kind < 0.75:
            return broken(rng)
        if kind < 0.83:  # white space
            return "".join(rng.choice(SPACES) * rng.randint(1, 4) if rng.random() < 0.7 else rng.choice(["a", "1", ".", "字", "Ab"])
                           for _ in range(rng.randint(1, 12))).encode()
        if kind < 0.93:  # any characters at all
            return "".join(any_character(rng) for _ in range(rng.randint(1, 16))).encode()
        if kind < 0.96:
            return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), rng.choice(SCRIPTS)).encode()
        return rng.choice(HARD).encode()

    return [text.encode() for text in HARD + pool][:count] + [one() for _ in range(count - len(HARD) - len(pool))]
