#!/usr/bin/env python3
"""Perplexity and KL divergence beside llama.cpp's llama-perplexity: a model, and what `thimble quantize` makes of it.

  perplexity.py --thimble build/thimble --llama-perplexity PATH --model FILE.gguf --text wiki.test.raw [--chunks 10]

Both programs read the same files and the same chunks. First the model written out in f32, both computing in f32: that
is the same figure up to rounding (bar: 0.05 %). Then the model and every type, each program with its fast kernels: both
round activations, so each is shown beside `--precision f32` on the same file (bar: Thimble within 0.5 % of that), with
the KL divergence from the model in f32. Needs only the standard library.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

TYPES = ["q8_0", "q6_k", "q5_1", "q5_k", "q4_k", "q4_0"]


def thimble(args, model, precision, *more):
    out = subprocess.run([args.thimble, "perplexity", "--json", "--threads", str(args.threads), "-m", model,
                          "-c", str(args.context), "--chunks", str(args.chunks), "--precision", precision,
                          *more, args.text], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def llama(args, model, *more):
    run = subprocess.run([args.llama_perplexity, "-m", model, "-f", args.text, "-t", str(args.threads), "-ngl", "0",
                          "-c", str(args.context), "--chunks", str(args.chunks), *more],
                         capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{args.llama_perplexity} failed on {model}:\n{run.stderr[-2000:]}")
    return run.stdout + run.stderr


def figure(pattern, text):
    found = re.search(pattern + r"\s*(-?[\d.]+) (?:\+/-|±)\s+([\d.]+)", text)
    if found is None:
        sys.exit(f"no figure '{pattern}' in what llama-perplexity printed:\n{text[-2000:]}")
    return float(found[1]), float(found[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", required=True)
    parser.add_argument("--llama-perplexity", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--types", nargs="*", default=TYPES)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    missed = []
    with tempfile.TemporaryDirectory() as work:
        def quantized(kind):
            made = str(pathlib.Path(work) / f"{kind}.gguf")
            subprocess.run([args.thimble, "quantize", args.model, made, "--type", kind], check=True,
                           capture_output=True)
            return made

        exact_file, logits = quantized("f32"), str(pathlib.Path(work) / "exact.logits")
        ours = thimble(args, exact_file, "f32")["perplexity"]
        theirs = figure("PPL =", llama(args, exact_file, "--kl-divergence-base", logits, "-fa", "off",
                                       "-ctk", "f32", "-ctv", "f32"))
        differ = ours["value"] / theirs[0] - 1
        print(f"{args.chunks} chunks of {args.context}; {args.model} in f32: thimble {ours['value']:.4f} ± "
              f"{ours['error']:.4f}, llama.cpp {theirs[0]:.4f} ± {theirs[1]:.5f}, {100 * differ:+.4f} %\n", flush=True)
        if abs(differ) > 5e-4:
            missed.append("f32")

        print("          file    exact   thimble: perplexity, from exact, KL   llama.cpp: perplexity, from exact, KL   "
              "thimble / llama.cpp")
        for kind in ["original", *args.types]:
            file = args.model if kind == "original" else quantized(kind)
            exact = thimble(args, file, "f32")["perplexity"]["value"]
            score = thimble(args, file, "fast", "--reference", exact_file, "--reference-precision", "f32")
            fast, kl = score["perplexity"]["value"], score["kl"]["value"]
            text = llama(args, file, "--kl-divergence-base", logits, "--kl-divergence")
            peer, peer_kl = figure(r"Mean PPL\(Q\)\s*:", text)[0], figure("Mean    KLD:", text)[0]
            print(f"{kind:8} {pathlib.Path(file).stat().st_size / 1e6:5.0f} MB {exact:8.4f}   {fast:8.4f} "
                  f"{100 * (fast / exact - 1):+6.2f} % {kl:8.5f}           {peer:8.4f} "
                  f"{100 * (peer / exact - 1):+6.2f} % {peer_kl:8.5f}             {100 * (fast / peer - 1):+6.2f} %",
                  flush=True)
            if abs(fast / exact - 1) > 5e-3:
                missed.append(kind)
            if kind != "original":
                pathlib.Path(file).unlink()
    if missed:
        print("missed: " + ", ".join(missed))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
