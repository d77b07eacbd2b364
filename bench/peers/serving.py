#!/usr/bin/env python3
"""Serving side by side with llama-server: the servers in turns on the same file and prompts, medians of the rounds.

  serving.py --thimble build/thimble --llama-server FILE --model FILE.gguf [--clients 1,16] [--rounds 5]

Every client sends one streamed request after the other: a prompt of 225 tokens, of which all share the first 178, and
64 tokens of answer (the end token ignored, greedy). Then, one client, free text against text held to a JSON schema, as
tokens of answer a second. Needs only the standard library. Exit status 1 where a bar is missed.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

SHARED, OWN, ANSWER = 178, 47, 64
RATE_BARS = {1: 1.6, 16: 3.0}  # times llama-server's requests a second
TTFT_BAR = 0.25                # of llama-server's p95, 16 clients
SCHEMA_BAR = 1.0               # constrained against free tokens a second

SCHEMA = {"type": "object", "additionalProperties": False,
          "required": ["title", "summary", "priority", "tags"],
          "properties": {"title": {"type": "string", "maxLength": 60}, "summary": {"type": "string", "maxLength": 200},
                         "priority": {"enum": ["low", "normal", "high"]},
                         "tags": {"type": "array", "minItems": 2, "maxItems": 5,
                                  "items": {"type": "string", "maxLength": 20}}}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_ready(port, process, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"a server ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.01)
    sys.exit("a server did not get ready in two minutes")


class Server:
    def __init__(self, args, kind, clients):
        self.port = free_port()
        if kind == "thimble":
            command = [args.thimble, "serve", args.model, "--port", self.port, "--threads", args.threads]
        else:
            command = [args.llama_server, "-m", args.model, "--port", self.port, "-t", args.threads, "-np", clients,
                       "-c", clients * 512]
        out, name = tempfile.mkstemp()
        start = time.monotonic()
        self.process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out,
                                        preexec_fn=lambda: os.nice(args.nice))
        os.close(out)
        wait_ready(self.port, self.process, pathlib.Path(name))
        self.ready_s = time.monotonic() - start

    def peak_mb(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


async def stream(port, path, body):
    """Sends one request; gives seconds to the first text, seconds to the end, and the tokens of the answer."""
    data = json.dumps(body).encode()
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
                 f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError((status + await reader.read()).decode(errors="replace"))
    first, tokens, ended = None, 0, False
    async for line in reader:
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            ended = True
            break
        event = json.loads(line[6:])
        choice = event["choices"][0] if event.get("choices") else {}
        if (choice.get("text") or choice.get("delta", {}).get("content")) and first is None:
            first = time.perf_counter() - start
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    writer.close()
    if not ended or first is None:
        raise RuntimeError("a stream did not come to its end")
    return first, time.perf_counter() - start, tokens


def prompts(count, seed):
    draw = random.Random(seed)
    shared = [draw.randrange(1000, 40000) for _ in range(SHARED)]
    return [shared + [draw.randrange(1000, 40000) for _ in range(OWN)] for _ in range(count)]


async def load(port, clients, requests, seed):
    queue = prompts(requests, seed)
    results = []

    async def client():
        while queue:
            results.append(await stream(port, "/v1/completions", {
                "prompt": queue.pop(), "max_tokens": ANSWER, "temperature": 0, "ignore_eos": True, "stream": True,
                "stream_options": {"include_usage": True}}))

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - start
    wrong = [tokens for _, _, tokens in results if tokens != ANSWER]
    if wrong:
        sys.exit(f"answers of {wrong[:5]} tokens instead of {ANSWER}")
    first = sorted(r[0] for r in results)
    return requests / seconds, first[len(first) // 2], first[min(len(first) - 1, int(0.95 * len(first)))]


async def schema(port, requests):
    """Tokens a second of free and of held answers, in turns: neither has the machine's better minute, and each is the
    first to read half of the prompts, which the other then finds in the cache."""
    kinds = [{}, {"response_format": {"type": "json_schema",
                                      "json_schema": {"name": "ticket", "schema": SCHEMA, "strict": True}}}]
    tokens, seconds = [0, 0], [0, 0]
    for extra in kinds:
        await stream(port, "/v1/chat/completions", chat(0, extra))  # the grammar is compiled once
    for i in range(requests):
        for kind in (0, 1) if i % 2 == 0 else (1, 0):
            _, whole, count = await stream(port, "/v1/chat/completions", chat(i + 1, kinds[kind]))
            tokens[kind] += count
            seconds[kind] += whole
    return tokens[0] / seconds[0], tokens[1] / seconds[1]


def chat(number, extra):
    return {"messages": [{"role": "user", "content": f"Ticket {number}: my laptop's screen flickers since the update, "
                                                     "and the dock is not found. Describe the ticket."}],
            "max_tokens": 96, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}, **extra}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", default="1,16", help="empty: only the schema")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=48, help="of every round; a quarter of them with one client")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--no-schema", action="store_true")
    args = parser.parse_args()
    missed = False

    for clients in [int(c) for c in args.clients.split(",") if c]:
        runs = {"thimble": [], "llama-server": []}
        for round_number in range(args.rounds):
            for kind, list_of_runs in runs.items():
                server = Server(args, kind, clients)
                try:
                    asyncio.run(load(server.port, clients, clients, 1000 + round_number))  # warm
                    requests = args.requests if clients > 1 else max(args.requests // 4, 4)
                    list_of_runs.append((*asyncio.run(load(server.port, clients, requests, round_number)),
                                         server.ready_s, server.peak_mb()))
                finally:
                    server.stop()
        for kind, list_of_runs in runs.items():
            rate, p50, p95, ready, peak = (statistics.median(column) for column in zip(*list_of_runs))
            print(f"{clients:3} clients  {kind:13} {rate:6.2f} requests/s   first token p50 {p50:6.3f} s  p95 {p95:6.3f} s"
                  f"   ready in {ready:.2f} s   peak {peak:.0f} MB", flush=True)
        ratio = statistics.median(a[0] / b[0] for a, b in zip(*runs.values()))
        first = statistics.median(a[2] / b[2] for a, b in zip(*runs.values()))
        ok = ratio >= RATE_BARS.get(clients, 0) and (clients < 16 or first <= TTFT_BAR)
        missed |= not ok
        print(f"{clients:3} clients  {ratio:.2f} x the requests/s, {first:.2f} x the p95 to the first token"
              f"   {'' if ok else 'MISSED'}", flush=True)

    if not args.no_schema:
        for kind in ("thimble", "llama-server"):
            free, held = [], []
            for _ in range(args.rounds):
                server = Server(args, kind, 1)
                try:
                    a, b = asyncio.run(schema(server.port, 6))
                finally:
                    server.stop()
                free.append(a)
                held.append(b)
            ratio = statistics.median(b / a for a, b in zip(free, held))
            bad = kind == "thimble" and ratio < SCHEMA_BAR
            missed |= bad
            print(f"schema, {kind:13} {statistics.median(free):6.1f} tokens/s free, {statistics.median(held):6.1f} held to "
                  f"a schema: {ratio:.2f} x   {'MISSED' if bad else ''}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
