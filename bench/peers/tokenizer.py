#!/usr/bin/env python3
"""Thimble's tokenizer beside Hugging Face `tokenizers`, one thread each, in turns: MB/s of encoding and decoding.

  tokenizer.py --thimble-bench build/bench/bench_tokenizer --model MODEL.gguf TEXT... [--pairs 3]

MODEL is a GGUF file with SmolLM2's vocabulary; both read the same tokenizer.json made of it. A TEXT is a file, or a
folder whose .cpp and .h files are put together. Texts are encoded line by line. Rates are medians over the pairs. Exit
status 1 where the two find different numbers of tokens, or Thimble encodes at less than 10 MB/s.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "oracle"))

from tokenizers import Tokenizer, pre_tokenizers  # noqa: E402

import tokenizer_models  # noqa: E402


def read(path):
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".cpp", ".h"))
        return "".join(p.read_bytes().decode() for p in files)
    return path.read_bytes().decode()


def hugging_face(file, texts):
    """MB/s of a new tokenizer's first pass, of its second, and of decoding; and the tokens."""
    out = []
    for text in texts:
        tokenizer = Tokenizer.from_file(file)
        tokenizer.encode_special_tokens = True  # control tokens in these texts are text, as in Thimble by default
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        megabytes = len(text.encode()) / 1e6
        rates = []
        for _ in range(2):
            start = time.perf_counter()
            ids = [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]
            rates.append(megabytes / (time.perf_counter() - start))
        start = time.perf_counter()
        for part in ids:
            tokenizer.decode(part, skip_special_tokens=False)
        rates.append(megabytes / (time.perf_counter() - start))
        out.append((rates, sum(map(len, ids))))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble-bench", required=True)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    reference = tokenizer_models.byte_level(tokenizer_models.read_gguf(options.model), pre)
    texts = [read(path) for path in options.texts]
    keys = ("encode_first_mb_per_s", "encode_mb_per_s", "decode_mb_per_s")
    ours, theirs, build_ms = [[] for _ in texts], [[] for _ in texts], []
    good = True
    with tempfile.TemporaryDirectory() as folder:
        file = str(pathlib.Path(folder) / "tokenizer.json")
        reference.save(file)
        for _ in range(options.pairs):
            done = subprocess.run([options.thimble_bench, file, *map(str, options.texts), "--json"], check=True,
                                  capture_output=True, text=True)
            results = json.loads(done.stdout)
            start = time.perf_counter()
            Tokenizer.from_file(file)
            build_ms.append((results["read_ms"] + results["build_ms"], (time.perf_counter() - start) * 1e3))
            for i, (rates, tokens) in enumerate(hugging_face(file, texts)):
                mine = results["texts"][i]
                ours[i].append([mine[key] for key in keys])
                theirs[i].append(rates)
                if mine["tokens"] != tokens:
                    print(f"FAIL {options.texts[i].name}: {mine['tokens']} tokens, Hugging Face has {tokens}")
                    good = False
    print(f"{options.pairs} pairs, one thread, MB/s: Thimble / Hugging Face tokenizers / ratio")
    for i, path in enumerate(options.texts):
        for k, what in enumerate(("encode, first pass", "encode", "decode")):
            a, b = (statistics.median(r[k] for r in side[i]) for side in (ours, theirs))
            good = good and (k == 2 or a >= 10)
            print(f"{path.name:16} {what:18} {a:8.1f} {b:8.2f} {a / b:7.1f}")
    a, b = (statistics.median(side) for side in zip(*build_ms))
    print(f"reading tokenizer.json: {a:.1f} / {b:.1f} ms")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
