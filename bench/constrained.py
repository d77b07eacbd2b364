"""What speculation gives one client: answers of a tuned job one at a time, free, constrained, and constrained token by
token, in turns. Tokens/s counts the answers' tokens over the whole time, prompts included.

Needs only the standard library. Usage: constrained.py --thimble build/thimble --job examples/helpdesk
"""

import argparse
import json
import statistics
import subprocess

MODES = {
    "unconstrained, token by token": ["--unconstrained", "--no-speculation"],
    "unconstrained": ["--unconstrained"],
    "constrained, token by token": ["--no-speculation"],
    "constrained": [],
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--job", default="examples/helpdesk")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("extra", nargs="*", help="more options of `thimble eval`")
    args = parser.parse_args()

    results = {mode: [] for mode in MODES}
    for _ in range(args.rounds):
        for mode, options in MODES.items():
            command = [args.thimble, "eval", args.job, "--dev", "--batch", "1", "--limit", str(args.rows), "--json",
                       *options, *args.extra]
            results[mode].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    free = [r["output_tokens"] / r["seconds"] for r in results["unconstrained, token by token"]]
    print(f"{args.rows} rows, one at a time, {args.rounds} rounds; medians")
    for mode, runs in results.items():
        rates = [r["output_tokens"] / r["seconds"] for r in runs]
        ratio = statistics.median(a / b for a, b in zip(rates, free))
        last = runs[-1]
        print(f"{mode:32} {statistics.median(rates):7.1f} tokens/s  x{ratio:.2f}   exact {last['exact']:.3f}   "
              f"{last['output_tokens']} tokens, {last['forced_tokens']} forced, "
              f"{last['accepted_tokens']} of {last['drafted_tokens']} guesses right")


if __name__ == "__main__":
    main()
