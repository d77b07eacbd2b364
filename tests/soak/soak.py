#!/usr/bin/env python3
"""Mixed load on a server for a while: right answers, none lost, flat memory, no file left open.

  soak.py --thimble build/thimble --model MODEL [--minutes 60] [--clients 12] [--seed 1]

Clients ask for answers that are known (each was given alone before), whole and streamed, with tools, schemas and
seeds; some leave in the middle, some read slowly, some are killed with a reset, some send what is malformed. At the end
the server must have answered every client that stayed, with the same text as alone, hold as many files open as at the
start, and have grown by at most 2 % since its caches were full. Needs only the standard library.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

TOOLS = [{"type": "function", "function": {"name": "paint", "parameters": {
    "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}, "coats": {"type": "integer", "minimum": 1,
                                                                                   "maximum": 3}},
    "required": ["colour", "coats"]}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {
    "type": "object", "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}}, "required": ["n", "ok"],
    "additionalProperties": False}}}
MALFORMED = [
    b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 5\r\n\r\n{nope", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
    b"chunked\r\n\r\nzz\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40000 + b"\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n{\"messages\":3}",
]


def cases():
    out = []
    for i in range(24):
        body = {"messages": [{"role": "user", "content": f"Tell me a short story about number {i % 8}."}],
                "max_tokens": 24, "seed": i, "temperature": [0, 0.8, 1.2][i % 3]}
        if i % 6 == 4:
            body.update(response_format=SCHEMA, max_tokens=60)
        if i % 6 == 5:
            body.update(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=120)
        out.append(body)
    return out


def said(message):
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]
    return message.get("content") or "", calls


def request(body, path="/v1/chat/completions"):
    data = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def body_of_chunks(rest):
    whole, at = b"", 0
    while True:
        end = rest.index(b"\r\n", at)
        size = int(rest[at:end], 16)
        if size == 0:
            return whole
        whole += rest[end + 2:end + 2 + size]
        at = end + 4 + size


def ask(port, body, path="/v1/chat/completions"):
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}",
                                                       json.dumps(body).encode())) as answer:
        return json.load(answer)


def merge(events):
    text, calls = "", []
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                if call["index"] == len(calls):
                    calls.append([call["function"]["name"], ""])
                calls[call["index"]][1] += call["function"].get("arguments") or ""
    return text, [tuple(call) for call in calls]


class Soak:
    def __init__(self, port, expected, seed):
        self.port, self.expected, self.draw = port, expected, random.Random(seed)
        self.counts, self.faults = {}, []

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answer(self, index, streamed, slow=False):
        body = dict(self.expected[index][0], stream=streamed)
        reader, writer = await self.connect()
        writer.write(request(body))
        raw = b""
        while True:
            piece = await reader.read(64 if slow else 65536)
            if not piece:
                break
            raw += piece
            if slow:
                await asyncio.sleep(0.002)
        writer.close()
        head, _, rest = raw.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
        if status == 429:
            await asyncio.sleep(0.2)
            return
        if b"chunked" in head:
            rest = body_of_chunks(rest)
        if status != 200:
            self.faults.append(f"case {index}: status {status}: {rest[:300]}")
            return
        if streamed:
            lines = [line[6:] for line in rest.decode().split("\n\n") if line.startswith("data: ")]
            if not lines or lines[-1] != "[DONE]":
                self.faults.append(f"case {index}: the stream has no end")
                return
            got = merge(json.loads(line) for line in lines[:-1])
        else:
            got = said(json.loads(rest)["choices"][0]["message"])
        if got != self.expected[index][1]:
            self.faults.append(f"case {index}: {got!r} instead of {self.expected[index][1]!r}")

    async def leave(self, index, reset):
        reader, writer = await self.connect()
        writer.write(request(dict(self.expected[index][0], stream=True, max_tokens=400, ignore_eos=True)))
        await asyncio.sleep(self.draw.random() * 0.3)
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()

    async def malformed(self):
        reader, writer = await self.connect()
        writer.write(self.draw.choice(MALFORMED))
        try:
            raw = await asyncio.wait_for(reader.read(65536), 2)
            if raw and not raw.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")):
                self.faults.append(f"something malformed was answered with {raw[:80]!r}")
        except (ConnectionResetError, asyncio.TimeoutError):
            pass  # what is not a whole request may be waited for
        writer.close()

    async def client(self, until):
        while time.monotonic() < until and len(self.faults) < 20:
            kind = self.draw.choices(("whole", "streamed", "slow", "leaves", "killed", "malformed"),
                                     (30, 30, 6, 12, 12, 10))[0]
            index = self.draw.randrange(len(self.expected))
            try:
                if kind == "malformed":
                    await self.malformed()
                elif kind in ("leaves", "killed"):
                    await self.leave(index, kind == "killed")
                else:
                    await asyncio.wait_for(self.answer(index, kind != "whole", kind == "slow"), 300)
            except Exception as e:  # noqa: BLE001: whatever it is, an answer was lost
                self.faults.append(f"{kind}, case {index}: {type(e).__name__}: {e}")
            self.counts[kind] = self.counts.get(kind, 0) + 1

    async def run(self, clients, seconds):
        until = time.monotonic() + seconds
        await asyncio.gather(*(self.client(until) for _ in range(clients)))


def memory_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def start(thimble, model, log, *options):
    """A server that answers, and its port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([thimble, "serve", model, "--port", str(port), *options],
                              stdout=log.open("w"), stderr=subprocess.STDOUT)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            break
        except OSError:
            time.sleep(0.1)
    return server, port


def fill_cache(port, seed, context):
    """Touches all of the cache's memory, which is taken as it is needed."""
    draw = random.Random(seed)
    for _ in range(context * 3 // 300):
        prompt = [draw.randrange(1000, 40000) for _ in range(300)]
        ask(port, {"prompt": prompt, "max_tokens": 4}, "/v1/completions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    log = pathlib.Path(tempfile.mkstemp()[1])
    server, port = start(args.thimble, args.model, log, "-c", "4096")
    try:
        expected = [(body, said(ask(port, body)["choices"][0]["message"])) for body in cases()]
        fill_cache(port, args.seed, 4096)
        soak = Soak(port, expected, args.seed)
        seconds = args.minutes * 60
        asyncio.run(soak.run(args.clients, min(seconds / 3, 120)))  # fills the caches
        time.sleep(2)
        memory, open_files = memory_mb(server.pid), files(server.pid)
        asyncio.run(soak.run(args.clients, seconds - min(seconds / 3, 120)))
        time.sleep(3)
        memory_after, files_after = memory_mb(server.pid), files(server.pid)
        if server.poll() is not None:
            soak.faults.append(f"the server ended with {server.returncode}")
        if memory_after > memory * 1.02:
            soak.faults.append(f"memory grew from {memory:.1f} to {memory_after:.1f} MB")
        if files_after > open_files:
            soak.faults.append(f"{files_after} files are open, {open_files} were")
        server.send_signal(signal.SIGTERM)
        if server.wait(60) != 0:
            soak.faults.append(f"the server ended with {server.returncode} after SIGTERM")
    finally:
        server.kill()
    print(", ".join(f"{count} {kind}" for kind, count in sorted(soak.counts.items())))
    print(f"memory {memory:.1f} MB, then {memory_after:.1f}; files {open_files}, then {files_after}; "
          f"{len(soak.faults)} faults")
    for fault in soak.faults[:20]:
        print("  " + fault)
    if soak.faults:
        print(log.read_text()[-1000:])
    sys.exit(1 if soak.faults else 0)


if __name__ == "__main__":
    main()
