#!/usr/bin/env python3
"""Inference side by side with llama.cpp: the programs in turns, medians, and the median of the ratios pair by pair.

  inference.py --thimble build/thimble --llama-bin FOLDER --model FILE.gguf [--model ...] [--tests prefill,decode,...]

Tests: prefill, decode, depth (decoding after many tokens), batch (sequences side by side, against llama-batched-bench),
and start-up (Thimble alone). Shares are of the machine's limits that `thimble bench` measured in the same run. Needs
only the standard library. Exit status 1 where a bar is missed.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys

TESTS = ("prefill", "decode", "depth", "batch", "start-up")

# What must be reached, by test and by the type of most weights: times llama.cpp's rate, share of the machine's limit.
RATIO_BARS = {("prefill", None): 2, ("decode", "Q4_0"): 1.8, ("decode", "Q4_1"): 2.5, ("batch", None): 3}
SHARE_BARS = {("prefill", None): 0.45, ("prefill", "BF16"): 0.65, ("decode", "Q8_0"): 0.8, ("decode", "BF16"): 0.9}
START_UP_BAR = 0.2  # seconds to the first token of a new process


def bar(bars, test, kind):
    return bars.get((test, kind), bars.get((test, None)))


def output(args, command):
    words = shlex.split(args.under) + [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def weight_type(args, model):
    types = json.loads(output(args, [args.thimble, "info", "--json", model]))["types"]
    return max(types, key=lambda name: types[name]["bytes"])


def thimble(args, model, test):
    """Tokens a second (or seconds, for start-up), share of the machine's limit, and its name."""
    command = [args.thimble, "bench", "--json", "--repeat", "1", "-m", model, "--threads", args.threads,
               "--prompts", args.prompt if test in ("prefill", "start-up") else 0,
               "--generate", args.generate if test == "decode" else 0]
    command += ["--depths", args.depth] if test == "depth" else []
    command += ["--batch", args.batch] if test == "batch" else []
    command += [] if test == "start-up" else ["--no-start-up"]
    result = json.loads(output(args, command))
    if test == "start-up":
        return result["start_up"]["first_token_seconds"], None, ""
    line = result["results"][0]
    return line["tokens_per_second"], line["share_of_limit"], line["limit"]


def llama(args, model, test):
    """Tokens a second."""
    if test == "batch":
        context = args.batch * (8 + args.batch_tokens)
        text = output(args, [f"{args.llama_bin}/llama-batched-bench", "-m", model, "-t", args.threads, "-c", context,
                             "-npp", 8, "-ntg", args.batch_tokens, "-npl", args.batch, "--output-format", "jsonl"])
        return [json.loads(line)["speed_tg"] for line in text.splitlines() if line.startswith("{")][-1]
    sizes = {"prefill": ["-p", args.prompt, "-n", 0], "decode": ["-p", 0, "-n", args.generate],
             "depth": ["-p", 0, "-n", args.batch_tokens, "-d", args.depth]}[test]
    text = output(args, [f"{args.llama_bin}/llama-bench", "-m", model, "-t", args.threads, *sizes, "-r", 1,
                         "-o", "json"])
    return json.loads(text)[0]["avg_ts"]


def compare(args, model, test):
    """Prints one line; False where a bar is missed."""
    kind = weight_type(args, model)
    ours, theirs = [], []
    for _ in range(args.pairs):
        ours.append(thimble(args, model, test))
        if test != "start-up":
            theirs.append(llama(args, model, test))
    rate = statistics.median(o[0] for o in ours)
    name = f"{model.rsplit('/', 1)[-1].removesuffix('.gguf'):<16} {args.titles[test]:<24}"
    if test == "start-up":
        good = rate <= START_UP_BAR
        print(f"{name} {rate:8.3f} s (at most {START_UP_BAR})  {'ok' if good else 'MISSED'}", flush=True)
        return good
    ratio = statistics.median(o[0] / t for o, t in zip(ours, theirs))
    share = statistics.median(o[1] for o in ours)
    missed, wanted = [], []
    for value, least, unit in ((ratio, bar(RATIO_BARS, test, kind), "x"), (share, bar(SHARE_BARS, test, kind), "share")):
        if least is not None:
            wanted.append(f"{least} {unit}")
            if value < least:
                missed.append(unit)
    verdict = f"{'MISSED' if missed else 'ok'} (at least {', '.join(wanted)})" if wanted else ""
    print(f"{name} thimble {rate:8.1f}  llama.cpp {statistics.median(theirs):8.1f}  ratio {ratio:5.2f}  "
          f"{100 * share:3.0f} % of {ours[0][2]}  {verdict}", flush=True)
    return not missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", required=True)
    parser.add_argument("--llama-bin", required=True, help="the folder with llama-bench and llama-batched-bench")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--under", default="", help="a command that every program is run by, such as 'taskset -c 0,1'")
    args = parser.parse_args()
    args.batch_tokens = 64  # what thimble bench decodes where --generate says nothing
    args.titles = {"prefill": f"prefill {args.prompt}", "decode": f"decode {args.generate}",
                   "depth": f"decode after {args.depth}", "batch": f"{args.batch} sequences",
                   "start-up": "first token, new process"}
    tests = args.tests.split(",")
    if unknown := set(tests) - set(TESTS):
        parser.error(f"unknown tests {', '.join(sorted(unknown))}; there are {', '.join(TESTS)}")
    print(f"{args.pairs} pairs, {args.threads} threads, tokens/s: medians, and the median of the ratios")
    results = [compare(args, model, test) for model in args.model for test in tests]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
