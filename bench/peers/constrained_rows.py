#!/usr/bin/env python3
"""Rows of a job with its tools in the prompt, answered under the job's grammar: Thimble and llama.cpp's server in turns.

  constrained_rows.py --thimble build/thimble --llama-server PATH --model FILE.gguf [--job examples/helpdesk]

Both get the same tokens and the same grammar, answer greedily, and keep the prompts' shared beginning. The server is
asked once with one client and once with as many as it has slots; its better time counts, without its start. Thimble's
time is its whole process. Exact: the calls are those of the row. Rows are of the job's dev part. Needs only the
standard library. Exit status 1 where the bar is missed.
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PORT = 8123


def calls_of(text):
    """The calls that an answer makes; None where it is cut."""
    calls = []
    for block in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL):
        try:
            calls.append(json.loads(block))
        except json.JSONDecodeError:
            return None
    return calls


def without_plan(job, folder):
    """A copy of the job for a base model: answers without a plan."""
    for name in ("thimble.toml", "tools.json", "train.jsonl"):
        shutil.copy(pathlib.Path(job) / name, folder)
    settings = pathlib.Path(folder) / "thimble.toml"
    settings.write_text(re.sub(r"(?m)^plan *=.*$", "", settings.read_text()))
    return folder


def thimble(args, job, predictions):
    begin = time.monotonic()
    subprocess.run([args.thimble, "--threads", str(args.threads), "eval", job, "--dev", "--base", "-m", args.model,
                    "--tools-in-prompt", "yes", "--limit", str(args.rows), "--batch", str(args.batch),
                    "--predictions", predictions], check=True, capture_output=True)
    seconds = time.monotonic() - begin
    rows = [json.loads(line) for line in open(predictions)]
    return seconds, [row["output"] for row in rows], [row["gold"] for row in rows]


def post(path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as answer:
        return json.load(answer)


def server(args, prompts, grammar, slots):
    longest = max(len(tokens) for tokens in prompts) + args.max_tokens + 16
    process = subprocess.Popen([args.llama_server, "-m", args.model, "--port", str(PORT), "-t", str(args.threads),
                                "-np", str(slots), "-c", str(slots * longest)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        else:
            sys.exit("llama-server does not come up")

        def ask(tokens):
            return post("/completion", {"prompt": tokens, "n_predict": args.max_tokens, "temperature": 0,
                                        "cache_prompt": True, "grammar": grammar})["content"]

        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(slots) as clients:
            answers = list(clients.map(ask, prompts))
        return time.monotonic() - begin, answers
    finally:
        process.terminate()
        process.wait()


def exact(answers, gold):
    return sum(calls_of(answer) == calls for answer, calls in zip(answers, gold))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--job", default="examples/helpdesk")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=256)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        job = without_plan(args.job, folder)
        grammar = subprocess.run([args.thimble, "grammar", job], check=True, capture_output=True, text=True).stdout
        prompts_file, predictions = f"{folder}/prompts.jsonl", f"{folder}/predictions.jsonl"
        subprocess.run([args.thimble, "eval", job, "--dev", "--base", "-m", args.model, "--tools-in-prompt", "yes",
                        "--limit", str(args.rows), "--prompts", prompts_file], check=True)
        prompts = [json.loads(line)["tokens"] for line in open(prompts_file)]
        ratios = []
        for _ in range(args.rounds):
            ours, our_answers, gold = thimble(args, job, predictions)
            print(f"thimble               {ours:7.1f} s   exact {exact(our_answers, gold)} of {len(gold)}", flush=True)
            times = []
            for slots in args.slots:
                seconds, answers = server(args, prompts, grammar, slots)
                times.append(seconds)
                same = sum(a.strip() == b.strip() for a, b in zip(answers, our_answers))
                print(f"llama-server, {slots:2} slots {seconds:7.1f} s   exact {exact(answers, gold)} of {len(gold)}, "
                      f"{same} answers as Thimble's", flush=True)
            ratios.append(min(times) / ours)
        ratio = statistics.median(ratios)
        print(f"llama-server takes {ratio:.1f} times as long (bar: 6)")
        sys.exit(0 if ratio >= 6 else 1)


if __name__ == "__main__":
    main()
