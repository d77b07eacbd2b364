"""Compares Thimble's tokenizers with Hugging Face's: encode and decode, 0 differences wanted.

  python tests/oracle/tokenizer_oracle.py --tool BUILD/tests/tokenize_tool --model MODEL.gguf --data DATA

MODEL is a GGUF file with a byte-level BPE vocabulary of SmolLM2's kind; DATA is the folder with `wikitext`, `tokenizers`
and `stories260K`. What is missing is said and left out. Texts that are not UTF-8 are given to Hugging Face after
bytes.decode("utf-8", "replace").
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from tokenizers import pre_tokenizers

import tokenizer_models as build
import tokenizer_text


def ask(tool, model, requests):
    out = subprocess.run([tool, model], input="".join(json.dumps(r) + "\n" for r in requests).encode(), capture_output=True)
    if out.returncode != 0:
        sys.exit(out.stderr.decode())
    return [json.loads(line) for line in out.stdout.splitlines()]


def compare(name, tool, model, reference, texts, seed=1):
    """Returns the number of differences and shows the first few."""
    rng = random.Random(seed)
    size = reference.get_vocab_size()
    requests = [{"hex": text.hex(), "add_special": rng.random() < 0.3, "parse_special": rng.random() < 0.7,
                 "skip_special": rng.random() < 0.5} for text in texts]
    requests += [{"ids": [rng.randrange(size) for _ in range(rng.randint(0, 12))], "skip_special": rng.random() < 0.5}
                 for _ in range(len(texts) // 5)]
    differences = 0

    def differ(what, request, expected, got):
        nonlocal differences
        differences += 1
        if differences <= 5:
            print(f"  {name}: {what}\n    request  {request}\n    expected {expected}\n    got      {got}")

    for request, answer in zip(requests, ask(tool, model, requests), strict=True):
        if "ids" in request:
            ids = request["ids"]
        else:
            reference.encode_special_tokens = not request["parse_special"]
            text = bytes.fromhex(request["hex"]).decode("utf-8", "replace")
            ids = reference.encode(text, add_special_tokens=request["add_special"]).ids
        if answer["ids"] != ids:
            differ("encode", request, ids, answer["ids"])
            continue
        expected = reference.decode(ids, skip_special_tokens=request["skip_special"])
        if answer["text"] != expected:
            differ("decode", request, expected, answer["text"])
        elif answer["streamed"] != expected:
            differ("streamed decode", request, expected, answer["streamed"])
    print(f"{name}: {len(requests)} cases, {differences} differences", flush=True)
    return differences


def speed(tool, model, reference, corpus):
    ours = json.loads(subprocess.run([tool, model, "--bench", corpus], capture_output=True, check=True).stdout)
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        for line in lines:
            reference.encode(line, add_special_tokens=False)
        best = min(best, time.perf_counter() - start)
    theirs = corpus.stat().st_size / best / 1e6
    print(f"one thread, English: {ours['mb_per_s']:.1f} MB/s (first pass {ours['first_mb_per_s']:.1f}), "
          f"Hugging Face tokenizers {theirs:.1f} MB/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--lines", type=int, default=10000)
    parser.add_argument("--speed", action="store_true", help="also measure MB/s")
    options = parser.parse_args()
    corpus = options.data / "wikitext" / "wiki.test.raw"
    english = corpus.read_text(encoding="utf-8").splitlines() if corpus.exists() else []
    differences = 0
    missing = []
    folder = pathlib.Path(tempfile.mkdtemp())

    def check(name, reference, lines, gguf=None):
        nonlocal differences
        special = [t.content for t in reference.get_added_tokens_decoder().values()]
        texts = tokenizer_text.lines(lines, seed=len(name), english=english, special=special)
        path = folder / f"{name.replace(' ', '_')}.json"
        reference.save(str(path))
        differences += compare(f"{name}, tokenizer.json", options.tool, path, reference, texts)
        if gguf is not None:
            differences += compare(f"{name}, GGUF", options.tool, gguf, reference, texts)
        return path

    if options.model is not None and options.model.exists():
        vocabulary = build.read_gguf(options.model)
        pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        reference = build.byte_level(vocabulary, pre)
        path = check("SmolLM2", reference, options.lines, options.model)
        if options.speed and english:
            speed(options.tool, path, reference, corpus)
        for name, variant in build.variants(vocabulary):
            check(name, variant, options.lines // 5)
    else:
        missing.append(f"SmolLM2 and its variants ({options.model})")

    for name, rstrip in (("llama-spm", lambda token: False), ("phi-3", build.phi3_rstrip)):
        path = options.data / "tokenizers" / f"ggml-vocab-{name}.gguf"
        if path.exists():
            check(name, build.sentence_piece(build.read_gguf(path), rstrip=rstrip), options.lines, path)
        else:
            missing.append(str(path))
    stories = options.data / "stories260K" / "tok512.bin"
    if stories.exists():
        for scheme in (None, "first", "always", "never"):
            check(f"stories260K, {scheme}", build.sentence_piece(build.read_llama2c(stories), scheme),
                  options.lines if scheme is None else options.lines // 5)
    else:
        missing.append(str(stories))
    for what in missing:
        print(f"left out, because it is not there: {what}")
    print(f"{differences} differences")
    # On the build machine nothing may be left out.
    return differences > 0 or len(missing) == 4 or (len(missing) > 0 and os.environ.get("CI") == "true")


if __name__ == "__main__":
    sys.exit(main())
