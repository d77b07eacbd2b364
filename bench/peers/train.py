#!/usr/bin/env python3
"""The same training steps in Thimble and in PyTorch (bf16; LoRA with PEFT), in turns: tokens/s and peak memory.

  train.py --thimble-bench build/bench/bench_train --model MODEL.gguf [--method lora|full] [--pairs 3] [--steps 3]

Each side runs its own program with the same rows, length, rank and threads; its first step warms up and is not counted.
Rates are medians over the pairs, the ratio is the median of each pair's own ratio; exit status 1 where Thimble is
slower or needs more than half of the memory.
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
STEP = re.compile(r"^step (\d+): [\d.]+ s, (\d+) tokens/s", re.MULTILINE)
PEAK = re.compile(r"peak memory (\d+) MB")


def measure(command):
    """Median tokens/s of the steps after the first, and peak resident memory in MB."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr[-2000:]}")
    rates = [int(rate) for step, rate in STEP.findall(done.stdout) if step != "0"]
    return statistics.median(rates), int(PEAK.search(done.stdout)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble-bench", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--compile", action="store_true", help="PyTorch with torch.compile")
    options = parser.parse_args()
    same = ["--rows", options.rows, "--length", options.length, "--rank", options.rank, "--steps", options.steps,
            "--threads", options.threads, "--method", options.method]
    peer = "PyTorch" + (" + PEFT" if options.method == "lora" else "") + (", compiled" if options.compile else "")
    ours, theirs = [], []
    for _ in range(options.pairs):
        ours.append(measure([options.thimble_bench, options.model, *same]))
        theirs.append(measure([sys.executable, HERE / "train_peft.py", options.model, *same,
                               *(["--compile"] if options.compile else [])]))
    speed = statistics.median(a[0] / b[0] for a, b in zip(ours, theirs))
    memory = statistics.median(a[1] / b[1] for a, b in zip(ours, theirs))
    print(f"training, {options.rows} x {options.length} tokens, "
          f"{f'rank {options.rank}' if options.method == 'lora' else 'all weights'}, {options.pairs} pairs of "
          f"{options.steps} steps, {options.threads} threads: medians, and the median of the ratios")
    for i, (what, unit, ratio) in enumerate((("speed", "tokens/s", speed), ("peak memory", "MB", memory))):
        print(f"{what:14} thimble {statistics.median(a[i] for a in ours):8.0f}   "
              f"{peer} {statistics.median(b[i] for b in theirs):8.0f} {unit}   ratio {ratio:.2f}")
    good = speed >= 1 and memory <= 0.5
    print(f"{'ok  ' if good else 'FAIL'} training: {speed:.2f} x the speed (at least 1), {memory:.2f} x the memory (at "
          "most 0.5)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
