"""Distributions that sampling must draw from, by transformers' logits processors in double precision.

Writes tests/golden/infer/sampler.json: rows of logits, and cases with options, history and the distribution: how many
tokens have a probability above 1e-9, the mean of their ids, and the 20 likeliest. Presence and frequency penalties (OpenAI's formula) and DRY, which transformers lacks, are
written out plainly below. With --check nothing is written: the committed file is compared with what comes out now.
"""

import argparse
import json
import pathlib
import random
import sys

import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "infer" / "sampler.json"
VOCAB = 301  # no multiple of a vector or a stretch
DEFAULTS = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical": 1.0, "repeat_penalty": 1.0,
    "repeat_window": 64, "presence_penalty": 0.0, "frequency_penalty": 0.0, "dry_multiplier": 0.0, "dry_base": 1.75,
    "dry_allowed_length": 2, "dry_window": 0, "breakers": [], "logit_bias": {}, "allowed": None,
}


def dry(history, options):
    """token -> penalty, by looking at every earlier place and walking back from it, as the proposal describes."""
    tokens = history[-options["dry_window"]:] if options["dry_window"] else history
    n = len(tokens)
    ends = [begin + len(b) for b in options["breakers"] for begin in range(n) if tokens[begin:begin + len(b)] == b]
    limit = n - max(ends, default=0)  # repetitions begin after the last breaker
    longest = {}
    for place in range(n - 1):  # the token at `place` may end an earlier copy of the end of the text
        length = 0
        while length < min(limit, place + 1) and tokens[place - length] == tokens[n - 1 - length]:
            length += 1
        if length >= options["dry_allowed_length"]:
            following = tokens[place + 1]
            longest[following] = max(longest.get(following, 0), length)
    return {
        token: options["dry_multiplier"] * options["dry_base"] ** (length - options["dry_allowed_length"])
        for token, length in longest.items() if [token] not in options["breakers"]
    }


def distribution(row, prompt, answer, given):
    o = {**DEFAULTS, **given}
    scores = torch.tensor([row], dtype=torch.float64)
    if o["allowed"] is not None:
        mask = torch.ones(VOCAB, dtype=torch.bool)
        mask[o["allowed"]] = False
        scores[0, mask] = -torch.inf
    for token, bias in o["logit_bias"].items():
        scores[0, int(token)] += bias
    history = prompt + answer
    none = torch.zeros((1, 0), dtype=torch.long)
    if o["repeat_penalty"] != 1:
        recent = history[-o["repeat_window"]:] if o["repeat_window"] else history
        scores = RepetitionPenaltyLogitsProcessor(o["repeat_penalty"])(torch.tensor([recent]), scores)
    for token in set(answer):
        scores[0, token] -= answer.count(token) * o["frequency_penalty"] + o["presence_penalty"]
    if o["dry_multiplier"]:
        for token, penalty in dry(history, o).items():
            scores[0, token] -= penalty
    if o["top_k"]:
        scores = TopKLogitsWarper(o["top_k"])(none, scores)
    if o["typical"] < 1:
        scores = TypicalLogitsWarper(o["typical"])(none, scores)
    if o["top_p"] < 1:
        scores = TopPLogitsWarper(o["top_p"])(none, scores)
    if o["min_p"]:
        scores = MinPLogitsWarper(o["min_p"])(none, scores)
    scores = TemperatureLogitsWarper(o["temperature"])(none, scores)
    probabilities = scores.softmax(-1)[0].tolist()
    likely = sorted((token for token, p in enumerate(probabilities) if p > 1e-9), key=lambda t: (-probabilities[t], t))
    return {
        "tokens": len(likely),
        "mean_id": float(f"{sum(token * p for token, p in enumerate(probabilities)):.8g}"),
        "likeliest": [[token, float(f"{probabilities[token]:.7g}")] for token in likely[:20]],
    }


def rows(rng):
    """Logits without ties, in steps that f32 holds exactly: peaked as a model's, flat, all negative, all positive."""
    steps = rng.sample(range(-6000, 6000), VOCAB)
    peaked = [round(-1.4 * 512 * torch.log(torch.tensor(float(rank + 1))).item() + rng.random()) for rank in range(VOCAB)]
    rng.shuffle(peaked)
    made = [steps, [s / 6 for s in steps], [s - 6001 for s in steps], [s + 6001 for s in steps],
            [p + 4000 + i / VOCAB for i, p in enumerate(peaked)]]
    return [torch.tensor([v / 512 for v in row], dtype=torch.float32).double().tolist() for row in made]


def histories(rng):
    """Pairs of prompt and answer: empty, random, and repeating ones."""
    phrase = [rng.randrange(VOCAB) for _ in range(6)]
    words = [rng.randrange(VOCAB) for _ in range(5)]
    return [
        ([], []),
        ([rng.randrange(VOCAB) for _ in range(90)], [rng.randrange(VOCAB) for _ in range(20)]),
        (phrase + [7] + phrase, [9] + phrase[:5]),
        ([rng.choice(words) for _ in range(120)], [rng.choice(words) for _ in range(40)]),
        ([3] * 12, [3] * 5),
    ]


def cases(rng):
    singles = [{}]
    singles += [{"temperature": t} for t in (0.01, 0.3, 0.7, 1.5, 20.0)]
    singles += [{"top_k": k} for k in (1, 2, 40, 300, 1000)]
    singles += [{"top_p": p} for p in (0.01, 0.3, 0.8, 0.95, 0.999)]
    singles += [{"min_p": p} for p in (0.001, 0.05, 0.5, 1.0)]
    singles += [{"typical": p} for p in (0.05, 0.2, 0.5, 0.9, 0.99)]
    for options in singles:
        for row in range(5):
            yield row, 0, options
    looking_back = [{"repeat_penalty": p, "repeat_window": w} for p in (0.8, 1.3, 3.0) for w in (0, 8, 64)]
    looking_back += [{"presence_penalty": p} for p in (-1.0, 1.5)]
    looking_back += [{"frequency_penalty": p} for p in (-0.5, 0.25, 2.0)]
    looking_back += [{"dry_multiplier": m, "dry_base": b, "dry_allowed_length": a, "dry_window": w}
                     for m, b, a, w in ((0.8, 1.75, 2, 0), (1.0, 1.0, 1, 0), (0.5, 2.0, 3, 16), (2.0, 3.0, 2, 100))]
    for options in looking_back:
        for history in range(1, 5):
            yield rng.randrange(5), history, options
    for _ in range(120):  # everything together
        history = rng.randrange(5)
        tokens = sum(histories(random.Random(5))[history], [])
        options = {}
        some = lambda chance, make: options.update(make()) if rng.random() < chance else None
        some(0.5, lambda: {"temperature": rng.choice((0.5, 0.9, 1.2, 2.0))})
        some(0.4, lambda: {"top_k": rng.choice((5, 20, 100))})
        some(0.4, lambda: {"top_p": rng.choice((0.5, 0.9, 0.97))})
        some(0.4, lambda: {"min_p": rng.choice((0.01, 0.1))})
        some(0.4, lambda: {"typical": rng.choice((0.3, 0.8, 0.95))})
        some(0.5, lambda: {"repeat_penalty": rng.choice((1.1, 1.8)), "repeat_window": rng.choice((0, 3, 30))})
        some(0.3, lambda: {"presence_penalty": rng.choice((-0.7, 0.4, 2.0))})
        some(0.3, lambda: {"frequency_penalty": rng.choice((-0.2, 0.3, 1.0))})
        if tokens:
            some(0.6, lambda: {"dry_multiplier": 1.5, "dry_allowed_length": rng.choice((1, 2, 4)),
                               "dry_window": rng.choice((0, 10, 40))})
            some(0.5, lambda: {"breakers": [tokens[i:i + n] for n in (1, 1, 2, 3)
                                            for i in [rng.randrange(len(tokens) - 3)]]})
        some(0.3, lambda: {"logit_bias": {str(rng.randrange(VOCAB)): rng.choice((-100, -2.5, 3.0, 8.0))
                                          for _ in range(4)}})
        some(0.3, lambda: {"allowed": sorted(rng.sample(range(VOCAB), rng.choice((1, 30, 200))))})
        yield rng.randrange(5), history, options


def make():
    rng = random.Random(11)
    logits, pasts = rows(rng), histories(random.Random(5))
    out = []
    for row, history, options in cases(rng):
        expected = distribution(logits[row], *pasts[history], options)
        out.append({"row": row, "history": history, "options": options, "expected": expected})
    return {"rows": logits, "histories": pasts, "cases": out}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    torch.set_num_threads(1)
    made = make()
    if not parser.parse_args().check:
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(case, separators=(",", ":")) for case in made["cases"]]
        head = json.dumps({"rows": made["rows"], "histories": made["histories"]}, separators=(",", ":"))
        GOLDEN.write_text(head[:-1] + ',"cases":[\n' + ",\n".join(lines) + "\n]}\n")
        return
    committed = json.loads(GOLDEN.read_text())
    wrong = 0
    for old, new in zip(committed["cases"], made["cases"], strict=True):
        a, b = old.pop("expected"), new.pop("expected")
        close = a["tokens"] == b["tokens"] and abs(a["mean_id"] - b["mean_id"]) < 1e-4 and all(
            s == t and abs(p - q) <= 1e-6 * q for (s, p), (t, q) in zip(a["likeliest"], b["likeliest"], strict=True))
        if not close or old != new:
            wrong += 1
            print(f"differs: {old['options']}")
    print(f"{len(made['cases'])} cases, {wrong} differences")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
