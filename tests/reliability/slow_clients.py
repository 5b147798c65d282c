#!/usr/bin/env python3
"""A thousand clients at a time that are slow in every way there is: what do they cost, and when are they gone?

Readers that ask for long answers and take none of it, connections on which nothing comes, headers and bodies that come byte by
byte. While they are there, somebody asks properly and is answered. Each has to be gone when its time limit has passed, and memory
to be back where it was.
"""

import asyncio
import contextlib
import os
import pathlib
import socket
import sys
import time

import wire
from common import TinyServer, arguments_of, report

LIMIT_SECONDS = 8  # each of the server's own for such clients
GONE_SECONDS = 300  # the readers are served in turn
MEMORY_GROWTH = 1.02
ANSWER_TOKENS = 2000
OTHERS = 4  # connections of those who ask properly
# What a client that is slow may cost: buffers, a session, its events.
KERNEL_BYTES = 1 << 20  # buffers of both ends, which are on this machine
KINDS = {"slow readers": 1 << 20, "nothing is sent": 64 << 10, "slow headers": 64 << 10, "slow bodies": 128 << 10}


def connect(address):
    host, _, port = address.rpartition(":")
    connection = socket.socket()
    # The least that the kernel grants, so that what is not read waits in the server.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.connect((host, int(port)))
    return connection


def kernel_bytes():
    """Of all TCP sockets of this machine."""
    line = next(line for line in pathlib.Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.split()[line.split().index("mem") + 1]) * os.sysconf("SC_PAGESIZE")


def first_bytes(kind):
    body = {"prompt": "x", "max_tokens": ANSWER_TOKENS, "ignore_eos": True, "stream": True, "logprobs": 20}
    if kind == "slow readers":
        return wire.post(body)
    if kind == "slow headers":
        return b"POST /v1/completions HTTP/1.1\r\nHost: m\r\nX-Long: "
    if kind == "slow bodies":
        return b"POST /v1/completions HTTP/1.1\r\nHost: m\r\nContent-Length: 30000\r\n\r\n" + b" " * 20000
    return b""


async def trickle(connections, seconds):
    """A byte a second to each."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.send(b"x")
        await asyncio.sleep(1)


async def asked_properly(server, until, found):
    while not until.is_set():
        status, answer = await wire.complete(server.address, {"prompt": "y", "max_tokens": 4, "temperature": 0})
        found.append((status, answer.get("choices")))
        health, _ = await wire.get(server.address, "/health")
        found[-1] += (health,)
        await asyncio.sleep(0.2)


async def try_kind(server, kind, clients, failures):
    before, peak, files = server.resident_bytes(), 0, server.open_files() + OTHERS
    kernel_before, kernel_peak = kernel_bytes(), 0
    stop, found = asyncio.Event(), []
    connections = []
    for _ in range(clients):
        connections.append(connect(server.address))
        if data := first_bytes(kind):
            connections[-1].sendall(data)
    begin = time.monotonic()
    others = asyncio.create_task(asked_properly(server, stop, found))
    slow = asyncio.create_task(trickle(connections if kind in ("slow headers", "slow bodies") else [], LIMIT_SECONDS))
    await asyncio.sleep(0)
    while (left := server.open_files() - files) > 0 and time.monotonic() - begin < GONE_SECONDS:
        peak, kernel_peak = max(peak, server.resident_bytes()), max(kernel_peak, kernel_bytes())
        await asyncio.sleep(0.25)
    gone = time.monotonic() - begin
    stop.set()
    await others
    slow.cancel()
    for connection in connections:
        connection.close()
    if left > 0:
        failures.append(f"{kind}: {left} connections are open after {GONE_SECONDS} s")
    wrong = [answer for answer in found if answer != found[0] or answer[0] != 200 or answer[2] != 200]
    if wrong or not found:
        failures.append(f"{kind}: of {len(found)} others, {len(wrong)} were not answered: {wrong[:1]}")
    cost = {"process": (peak - before) // clients, "kernel": (kernel_peak - kernel_before) // clients}
    for where, most in (("process", KINDS[kind]), ("kernel", KERNEL_BYTES)):
        if cost[where] > most:
            failures.append(f"{kind}: each of {clients} clients costs the {where} {cost[where]} bytes, more than {most}")
    return {"clients": clients, "resident_before": before, "resident_peak": peak,
            "bytes_each": cost, "gone_after_seconds": round(gone, 1),
            "answered_meanwhile": len(found)}


async def run(arguments, server):
    failures, kinds = [], {}
    await try_kind(server, "slow readers", arguments.clients // 10, failures)  # buffers that stay for the next ones
    start = {kind: None for kind in KINDS}
    for kind in start:
        kinds[kind] = await try_kind(server, kind, arguments.clients, failures)
    # What the allocator keeps after the first thousand is used again by the next.
    settled = server.resident_bytes()
    again = await try_kind(server, "slow readers", arguments.clients, failures)
    after = server.resident_bytes()
    if after > MEMORY_GROWTH * settled:
        failures.append(f"resident memory went from {settled} to {after} bytes")
    used = await wire.gauge(server.address, 'mobius_kv_pages{state="used"}')
    if used:
        failures.append(f"{used:g} pages are in use at the end")
    return report(arguments, f"tests/reliability/slow_clients.py --clients {arguments.clients}", failures,
                  limit_seconds=LIMIT_SECONDS, kinds=kinds, slow_readers_again=again, resident_settled=settled,
                  resident_at_the_end=after)


def main():
    arguments = arguments_of(__doc__, clients=(1000, "of each kind at a time"))
    limits = {f"http.{name}_timeout_seconds": LIMIT_SECONDS for name in ("header", "body", "write", "idle")}
    settings = {"engine.max_running": 256, "engine.max_waiting": arguments.clients, "kv.bytes": 256 << 20,
                "http.max_connections": arguments.clients + 64, "log.level": "error", **limits}
    with TinyServer(arguments, **settings) as server:
        code = asyncio.run(run(arguments, server))
        if not server.alive:
            print("the server died:\n" + server.log()[-2000:])
            return 1
        return code


if __name__ == "__main__":
    sys.exit(main())
