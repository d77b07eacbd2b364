#!/usr/bin/env python3
"""Logits and greedy texts against transformers' LlamaForCausalLM in f32 on the dequantised weights.

  logits_oracle.py PROGRAM [--model MODEL.gguf] [--stories FOLDER] [--prompts 20]

PROGRAM is build/thimble; MODEL.gguf the default model's file; FOLDER holds stories260K.bin and tok512.bin. Prompts
are 10 to 600 tokens long. --prompts compares fewer of them, spread over the lengths.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch

import prompts
import reference_model
from figures import Figures
from thimble_program import Thimble

HERE = pathlib.Path(__file__).parent
GENERATED = 64


def kl(expected, ours):
    """Of every position, in nats: how much of transformers' distribution ours misses."""
    expected, ours = (x.double().log_softmax(-1) for x in (expected, ours))
    return (expected.exp() * (expected - ours)).sum(-1)


def compare(figures, thimble, name, path, lengths, story=False):
    model, tokenizer = reference_model.load(path), reference_model.load_tokenizer(path)
    texts = prompts.make(tokenizer, story, lengths)
    tokens, counts, largest, divergence, generated = [], [], 0.0, [], []
    for text in texts:
        ids, ours = thimble.logits(path, text)
        tokens.append((ids, tokenizer.encode(text).ids))
        counts.append(len(ids))
        expected = reference_model.logits(model, ids)
        largest = max(largest, (ours - expected).abs().max().item())
        divergence.append(kl(expected, thimble.logits(path, text, precision="fast")[1]))
        theirs = tokenizer.decode(reference_model.greedy(model, ids, GENERATED), skip_special_tokens=False)
        generated.append((thimble.greedy(path, text, GENERATED), theirs))
    divergence = torch.cat(divergence)
    which = f"{name}, {len(texts)} prompts of {min(counts)} to {max(counts)} tokens"
    figures.all_equal(f"{which}: tokens", tokens)
    figures.at_most(f"{which}: f32 path, largest difference of a logit", largest, 2e-3)
    figures.all_equal(f"{which}: f32 path, {GENERATED} greedy tokens", generated)
    figures.at_most(f"{which}: fast path, mean KL a token (largest {divergence.max():.1e})", divergence.mean().item(),
                    1e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--stories", type=pathlib.Path)
    parser.add_argument("--prompts", type=int, default=len(prompts.LENGTHS))
    options = parser.parse_args()
    torch.set_num_threads(2)
    figures, thimble = Figures(), Thimble(options.program)
    step = -(-len(prompts.LENGTHS) // options.prompts)
    lengths = prompts.LENGTHS[::-1][::step][::-1]  # the longest is always there
    if options.stories:
        with tempfile.TemporaryDirectory() as work:
            folder = pathlib.Path(work) / "stories"
            subprocess.run([sys.executable, HERE / "make_stories.py", options.stories, folder], check=True)
            context = 512 - GENERATED
            compare(figures, thimble, "stories260K", folder, [min(n, context) for n in lengths], story=True)
    if options.model:
        compare(figures, thimble, "SmolLM2-135M", options.model, lengths)
    figures.finish()


if __name__ == "__main__":
    main()
