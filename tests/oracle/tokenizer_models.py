"""Hugging Face tokenizers to compare with: rebuilt from GGUF vocabularies, and variants that use every component."""

import struct

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")


def read_gguf(path):
    import gguf

    fields = gguf.GGUFReader(path).fields

    def get(key, default=None):
        field = fields.get("tokenizer.ggml." + key)
        return default if field is None else field.contents()

    return {key: get(key) for key in ("tokens", "scores", "token_type", "merges", "bos_token_id", "eos_token_id",
                                      "unknown_token_id", "add_bos_token")}


def added_tokens(vocabulary, rstrip=lambda token: False):
    return [AddedToken(token, special=kind != 4, normalized=False, rstrip=rstrip(token))
            for token, kind in zip(vocabulary["tokens"], vocabulary["token_type"]) if kind in (2, 3, 4)]


def byte_level(vocabulary, pre, normalizer=None, added=None, decoder=decoders.ByteLevel(), **bpe):
    ids = {token: i for i, token in enumerate(vocabulary["tokens"])}
    merges = [tuple(merge.split(" ")) for merge in vocabulary["merges"]]
    tokenizer = Tokenizer(models.BPE(ids, merges, **bpe))
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_tokens(added_tokens(vocabulary) if added is None else added)
    return tokenizer


def scored_merges(tokens, scores):
    """As transformers turns a SentencePiece model into merges (generate_merges)."""
    ids = {token: i for i, token in enumerate(tokens)}
    merges = []
    for token, score in zip(tokens, scores):
        local = [(token[:i], token[i:], score) for i in range(1, len(token)) if token[:i] in ids and token[i:] in ids]
        merges += sorted(local, key=lambda m: (ids[m[0]], ids[m[1]]))
    merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return [(left, right) for left, right, _ in merges]


def sentence_piece(vocabulary, metaspace=None, rstrip=lambda token: False):
    """The form of Llama's tokenizer.json; with `metaspace`, a newer one's prepend scheme."""
    tokens = vocabulary["tokens"]
    plain = [t if kind in (1, 5) else None for t, kind in zip(tokens, vocabulary["token_type"])]
    known = [(t, s) for t, s in zip(plain, vocabulary["scores"]) if t is not None]
    merges = scored_merges([t for t, _ in known], [s for _, s in known])
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    if metaspace is None:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=metaspace, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens(added_tokens(vocabulary, rstrip))
    bos = tokens[vocabulary["bos_token_id"]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary["bos_token_id"])])
    return tokenizer


def phi3_rstrip(token):
    return token not in ("<unk>", "<s>", "<|endoftext|>")


def read_llama2c(path, size=512):
    """llama2.c's tokenizer.bin: the longest token's length, then score, length and bytes of each token."""
    data = open(path, "rb").read()
    at, tokens, scores = 4, [], []
    for _ in range(size):
        score, length = struct.unpack_from("<fi", data, at)
        tokens.append(data[at + 8:at + 8 + length].decode())
        scores.append(score)
        at += 8 + length
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (size - 259)
    tokens[3:259] = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens[259:] = [token.replace(" ", "▁") for token in tokens[259:]]
    return {"tokens": tokens, "scores": scores, "token_type": kinds, "bos_token_id": 1, "eos_token_id": 2,
            "unknown_token_id": 0}


def variants(vocabulary):
    """Tokenizers over one byte-level vocabulary that between them use every supported component."""
    byte_level_end = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def split(*patterns):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + [byte_level_end])

    flags = [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True, lstrip=True, rstrip=True),
             AddedToken("Hello", single_word=True), AddedToken("ÄPFEL", normalized=True), AddedToken("ab", lstrip=True),
             AddedToken("abc", rstrip=True, normalized=False), AddedToken(" tail", special=False), AddedToken("x²")]
    digits = pre_tokenizers.Digits(individual_digits=True)
    yield "llama-3", byte_level(vocabulary, split(LLAMA3), ignore_merges=True)
    yield "qwen2", byte_level(vocabulary, split(QWEN2), normalizers.NFC())
    yield "tekken", byte_level(vocabulary, split(TEKKEN))
    yield "falcon", byte_level(vocabulary, pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]))
    yield "prefix space", byte_level(vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=True), added=flags)
    yield "flags", byte_level(vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False),
                              normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), added=flags)
    yield "accents", byte_level(vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip(), normalizers.Replace(Regex(r"\s{2,}"), " "),
         normalizers.Replace("``", '"')]))
    yield "nfkd", byte_level(vocabulary, pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]),
                             normalizers.NFKD())
    yield "byte-level normalizer", byte_level(vocabulary, pre_tokenizers.Split(Regex(r"Ġ?\p{L}+|."), "removed", invert=True),
                                              normalizers.ByteLevel())
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        yield behavior, byte_level(vocabulary, pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"[\s,.]|\d"), behavior), byte_level_end]))
    yield "words", byte_level(vocabulary, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                                                    pre_tokenizers.Punctuation(), byte_level_end]))
    yield "deepseek", byte_level(vocabulary, split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}",
                                                   r"\s+$"))
    yield "metaspace", byte_level(vocabulary, pre_tokenizers.Sequence([pre_tokenizers.Metaspace("▁", prepend_scheme="first"),
                                                                       byte_level_end]))
    yield "no decoder", byte_level(vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False), decoder=None)
