"""Trains two tiny tokenizers with Hugging Face's `tokenizers` and writes hard lines with their tokens, so that tests need
neither Python nor a model: python tests/oracle/make_tokenizer_goldens.py tests/golden/text/tokenizer"""

import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_models as build
import tokenizer_text

SPECIAL = ["<|begin|>", "<|im_start|>", "<|im_end|>"]


def corpus():
    return (tokenizer_text.ENGLISH + tokenizer_text.CODE + tokenizer_text.SCRIPTS[:3] + tokenizer_text.EMOJI) * 3


def byte_level():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(build.LLAMA3), "isolated"),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("Hello", single_word=True),
                          AddedToken("…", lstrip=True, rstrip=True)])
    begin = tokenizer.token_to_id(SPECIAL[0])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[(SPECIAL[0], begin)])])
    return tokenizer


def sentence_piece():
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=400, limit_alphabet=90, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].get)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + learned
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, tokenizer in (("byte_level", byte_level()), ("sentence_piece", sentence_piece())):
        tokenizer.save(str(folder / f"{name}.json"), pretty=False)
        special = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        rng = random.Random(7)
        with open(folder / f"{name}_cases.jsonl", "w", encoding="ascii") as out:
            for text in tokenizer_text.lines(300, seed=11, special=special):
                case = {"hex": text.hex(), "add_special": rng.random() < 0.3, "parse_special": rng.random() < 0.7,
                        "skip_special": rng.random() < 0.5}
                tokenizer.encode_special_tokens = not case["parse_special"]
                encoding = tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=case["add_special"])
                case["ids"] = encoding.ids
                case["text"] = tokenizer.decode(encoding.ids, skip_special_tokens=case["skip_special"])
                out.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()
