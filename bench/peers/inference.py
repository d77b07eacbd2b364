"""Prefill and decode side by side with llama.cpp: the two programs in turns, medians, and the ratio pair by pair.

Needs only the standard library. Usage: inference.py --thimble build/thimble --llama-bench PATH --model FILE.gguf
"""

import argparse
import json
import statistics
import subprocess


def thimble(args, prompt, generate):
    out = subprocess.run(
        [args.thimble, "bench", "--json", "--repeat", "1", "-m", args.model, "--threads", str(args.threads),
         "--prompts", str(prompt), "--generate", str(generate)],
        check=True, capture_output=True, text=True).stdout
    rates = {r["test"]: r["tokens_per_second"] for r in json.loads(out)["results"]}
    return rates["prefill"], rates["decode"]


def llama(args, prompt, generate):
    out = subprocess.run(
        [args.llama_bench, "-m", args.model, "-t", str(args.threads), "-p", str(prompt), "-n", str(generate),
         "-r", "1", "-o", "json"],
        check=True, capture_output=True, text=True).stdout
    rates = {}
    for r in json.loads(out):
        rates["prefill" if r["n_prompt"] else "decode"] = r["avg_ts"]
    return rates["prefill"], rates["decode"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--thimble", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    args = parser.parse_args()

    ours, theirs = [], []
    for _ in range(args.pairs):
        ours.append(thimble(args, args.prompt, args.generate))
        theirs.append(llama(args, args.prompt, args.generate))
    print(f"{args.pairs} pairs, {args.threads} threads, tokens/s: medians, and the median of the ratios")
    for i, name in enumerate((f"prefill {args.prompt}", f"decode {args.generate}")):
        ratio = statistics.median(a[i] / b[i] for a, b in zip(ours, theirs))
        print(f"{name:14} thimble {statistics.median(a[i] for a in ours):8.1f}   "
              f"llama.cpp {statistics.median(b[i] for b in theirs):8.1f}   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
