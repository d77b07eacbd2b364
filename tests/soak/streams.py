#!/usr/bin/env python3
"""Streams that are open and hardly read, beside clients that talk: all complete, in little memory.

  streams.py --thimble build/thimble --model MODEL [--idle 2000] [--active 16] [--most-mb 100]

The server has answered, filled its cache and a whole batch before it is weighed. Then long answers take its batch, and
the idle clients open their streams, so that all are open, and told so by pings, before the first of them has said a
word. Half of them read nothing until all others are done; half sip 512 bytes a second through the smallest buffer that
the kernel gives. Meanwhile the active clients, each from an address of its own, ask for one streamed answer after the
other. In the end every stream has given the text that its question gets alone and [DONE], the server's peak of
memory is less than --most-mb above what it weighed, and it holds as many files open as before. Needs only the standard
library.
"""

import argparse
import asyncio
import json
import pathlib
import resource
import signal
import socket
import sys
import tempfile
import time

from soak import ask, body_of_chunks, files, fill_cache, memory_mb, merge, request, said, start

kContext = 4096
kSip, kPause = 512, 1.0  # bytes, seconds
kLong = 32  # answers that fill the batch


def question(i, tokens):
    return {"messages": [{"role": "user", "content": f"Tell me a short story about number {i % 16}."}],
            "max_tokens": tokens, "temperature": 0, "ignore_eos": True}


def peak_mb(pid):
    """Since begin_peak."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def begin_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


class Stream:
    """One answer over a socket that nobody reads ahead of us."""

    def __init__(self, port, address, small=False):
        self.port, self.raw = port, b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.socket.bind((address, 0))

    async def ask(self, body):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self.port))
        await loop.sock_sendall(self.socket, request(dict(body, stream=True)))

    async def read(self, most=1 << 16):
        piece = await asyncio.get_running_loop().sock_recv(self.socket, most)
        self.raw += piece
        return piece

    async def read_head(self):
        while b"\r\n\r\n" not in self.raw and await self.read(kSip):
            pass

    async def rest(self):
        while await self.read():
            pass

    def fault(self, expected):
        """What is wrong with the whole answer; None: nothing."""
        self.socket.close()
        head, _, body = self.raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            return f"{head[:60]!r} {body[:200]!r}"
        try:
            events = [e[6:] for e in body_of_chunks(body).decode().split("\n\n") if e.startswith("data: ")]
        except ValueError:
            return f"the stream was cut off after {len(body)} bytes"
        if not events or events[-1] != "[DONE]":
            return f"the stream has no end: {events[-1][:120] if events else ''!r}"
        got = merge(json.loads(e) for e in events[:-1])
        return None if got == expected else f"{got!r} instead of {expected!r}"


class Load:
    def __init__(self, port, expected_idle, expected_active):
        self.port, self.idle_texts, self.active_texts = port, expected_idle, expected_active
        self.faults, self.open, self.most_open, self.idle_done = [], 0, 0, 0
        self.active_done, self.first_token = 0, []

    def judge(self, stream, expected, what):
        fault = stream.fault(expected)
        if fault:
            self.faults.append(f"{what}: {fault}")

    async def long_answer(self, i):
        stream = Stream(self.port, "127.0.0.2")
        await stream.ask(question(i, 400))
        await stream.rest()
        stream.socket.close()

    async def idle(self, i, tokens, sippers_done):
        holds = i % 2 == 0
        stream = Stream(self.port, "127.0.0.2", small=not holds)
        await stream.ask(question(i, tokens))
        await stream.read_head()
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        if holds:
            await sippers_done.wait()
        else:
            while await stream.read(kSip):
                await asyncio.sleep(kPause)
        await stream.rest()
        self.open -= 1
        self.idle_done += 1
        self.judge(stream, self.idle_texts[i % 16], f"idle stream {i}")

    async def active(self, client, tokens, idle_done):
        i = client
        while not idle_done.is_set() and len(self.faults) < 20:
            stream = Stream(self.port, f"127.0.1.{client + 1}")
            begin = time.monotonic()
            await stream.ask(question(i, tokens))
            while b"data: " not in stream.raw and await stream.read():
                pass
            self.first_token.append(time.monotonic() - begin)
            await stream.rest()
            self.judge(stream, self.active_texts[i % 16], f"active client {client}")
            self.active_done += 1
            i += 1

    async def run(self, idle, active, idle_tokens, active_tokens):
        sippers_done, idle_done = asyncio.Event(), asyncio.Event()
        long = [asyncio.create_task(self.long_answer(i)) for i in range(kLong)]
        await asyncio.sleep(0.5)
        waiting = [asyncio.create_task(self.idle(i, idle_tokens, sippers_done)) for i in range(idle)]
        talking = [asyncio.create_task(self.active(i, active_tokens, idle_done)) for i in range(active)]
        await asyncio.gather(*long, *waiting[1::2])
        sippers_done.set()
        await asyncio.gather(*waiting)
        idle_done.set()
        await asyncio.gather(*talking)


def settled(value, seconds=10):
    """What value() is once it has been the same for a second."""
    last, since, end = value(), time.monotonic(), time.monotonic() + seconds
    while time.monotonic() < min(end, since + 1):
        time.sleep(0.1)
        now = value()
        if now != last:
            last, since = now, time.monotonic()
    return last


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thimble", default="build/thimble")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--active", type=int, default=16)
    parser.add_argument("--idle-tokens", type=int, default=16)
    parser.add_argument("--active-tokens", type=int, default=64)
    parser.add_argument("--most-mb", type=float, default=100)
    args = parser.parse_args()

    need = args.idle + args.active + kLong + 64
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < need:
        sys.exit(f"streams.py: needs {need} open files; the hard limit is {hard} (ulimit -Hn)")
    log = pathlib.Path(tempfile.mkstemp()[1])
    # The server raises its own limit of open files; it inherits ours as it is.
    server, port = start(args.thimble, args.model, log, "-c", str(kContext), "--queue", str(need), "--ping", "2",
                         "--time-limit", "3600")  # how fast the machine is, is not the question
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    try:
        idle, active = ([said(ask(port, question(i, tokens))["choices"][0]["message"]) for i in range(16)]
                        for tokens in (args.idle_tokens, args.active_tokens))
        fill_cache(port, 1, kContext)
        load = Load(port, idle, active)
        asyncio.run(load.run(kLong, args.active, args.idle_tokens, args.active_tokens))  # a whole batch
        warm = len(load.first_token)
        files_before, memory = settled(lambda: files(server.pid)), memory_mb(server.pid)
        begin_peak(server.pid)
        begin = time.monotonic()
        load = Load(port, idle, active)
        asyncio.run(load.run(args.idle, args.active, args.idle_tokens, args.active_tokens))
        seconds = time.monotonic() - begin
        peak = peak_mb(server.pid)
        files_after, memory_after = settled(lambda: files(server.pid)), memory_mb(server.pid)
        if server.poll() is not None:
            load.faults.append(f"the server ended with {server.returncode}")
        if load.idle_done != args.idle or load.most_open < args.idle:
            load.faults.append(f"{load.idle_done} idle streams completed, at most {load.most_open} were open at once")
        if peak - memory >= args.most_mb:
            load.faults.append(f"memory grew from {memory:.1f} to {peak:.1f} MB")
        if files_after > files_before:
            load.faults.append(f"{files_after} files are open, {files_before} were")
        server.send_signal(signal.SIGTERM)
        if server.wait(60) != 0:
            load.faults.append(f"the server ended with {server.returncode} after SIGTERM")
    finally:
        server.kill()
    times = sorted(load.first_token)
    print(f"{load.idle_done} idle streams, {load.most_open} of them open at once, and {load.active_done} answers to "
          f"{args.active} active clients in {seconds:.0f} s; {warm} answers before")
    print(f"active clients' first token: median {times[len(times) // 2]:.2f} s, p95 {times[len(times) * 95 // 100]:.2f} s")
    print(f"memory {memory:.1f} MB before, {peak:.1f} at most (+{peak - memory:.1f}), {memory_after:.1f} after; files "
          f"{files_before}, then {files_after}; {len(load.faults)} faults")
    for fault in load.faults[:20]:
        print("  " + fault)
    if load.faults:
        print(log.read_text()[-1000:])
    sys.exit(1 if load.faults else 0)


if __name__ == "__main__":
    main()
