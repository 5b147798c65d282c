#!/usr/bin/env python3
"""Thousands of requests of which most go wrong: does everything come back?

Clients vanish before, while and after they ask, cancel, let deadlines pass, send half of a request or nonsense, and read slowly.
Between them others ask properly, and their answers must be right. At the end no request runs, no page is in use, and memory is
what it was after the first tenth.
"""

import asyncio
import random
import sys
import time

import wire
from common import TinyServer, arguments_of, report

AT_ONCE = 48
KINDS = {"answered": 30, "stream read": 10, "vanishes at once": 10, "vanishes in the stream": 15, "deadline": 10,
         "half a request": 5, "malformed": 15, "slow reader": 2, "several choices": 3}
IDLE_SECONDS = 60
MEMORY_GROWTH = 1.02


def body_of(rng, **more):
    return {"prompt": [rng.randrange(10, 200) for _ in range(rng.randrange(1, 600))],
            "max_tokens": rng.randrange(1, 60), "ignore_eos": True, "seed": rng.randrange(1000), **more}


def malformed(rng):
    """Bytes that are nearly a request."""
    whole = bytearray(wire.post(body_of(rng)))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(whole))
        form = rng.randrange(3)
        if form == 0:
            whole[at] = rng.randrange(256)
        elif form == 1:
            del whole[at:at + rng.randrange(1, 20)]
        else:
            whole[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
    return bytes(whole)


async def answered(address, rng, reference):
    """Asks what is known: the answer must be the one that came when nobody else asked."""
    body, text = rng.choice(reference)
    status, answer = await wire.complete(address, body)
    if status != 200 or answer["choices"][0]["text"] != text:
        raise wire.Broken(f"{status} {answer}; expected {text!r} of {body}")


async def one(address, kind, rng, reference):
    if kind == "answered":
        return await answered(address, rng, reference)
    async with wire.Connection(address) as (reader, writer):
        if kind == "malformed":
            writer.write(malformed(rng))
            try:  # an answer, an end, or a wait for what was announced
                await asyncio.wait_for(reader.read(1 << 16), 0.5)
            except asyncio.TimeoutError:
                pass
            return None
        if kind == "half a request":
            whole = wire.post(body_of(rng))
            writer.write(whole[:rng.randrange(1, len(whole))])
            await writer.drain()
            await asyncio.sleep(rng.random() * 0.2)
            return None
        more = {"stream": rng.random() < 0.7}
        if kind == "deadline":
            more["mobius"] = {"timeout_ms": rng.randrange(1, 40)}
        elif kind == "several choices":
            more["n"] = rng.randrange(2, 5)
        elif kind != "vanishes at once":
            more["stream"] = True
        writer.write(wire.post(body_of(rng, **more)))
        if kind == "vanishes at once":
            await writer.drain()
            await asyncio.sleep(rng.random() * 0.05)
            return None
        status, headers = await wire.read_head(reader)
        if status not in (200, 408, 429, 504):
            raise wire.Broken(f"{kind}: status {status}: {await wire.body_of(reader, headers)!r}")
        if headers.get("content-type", "").startswith("text/event-stream"):
            leave = rng.randrange(1, 20) if kind == "vanishes in the stream" else None
            async for event in wire.events_of(reader, headers):
                if kind == "slow reader":
                    await asyncio.sleep(0.05)
                if leave is not None and (leave := leave - 1) == 0:
                    writer.transport.abort()  # without a farewell
                    return None
                if event and "error" in event and kind != "deadline":
                    raise wire.Broken(f"{kind}: {event}")
        else:
            await wire.body_of(reader, headers)
    return None


async def batch(address, first, count, seed, reference, failures, kinds):
    """Requests first to first + count - 1, each a function of the seed and its number."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def guarded(number):
        rng = random.Random(f"{seed}/{number}")
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        async with gate:
            try:
                await asyncio.wait_for(one(address, kind, rng, reference), 120)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if kind in ("answered", "stream read", "several choices", "slow reader"):
                    failures.append(f"request {number}, {kind}: {error!r}")
            except Exception as error:  # all that is left is the server's fault
                failures.append(f"request {number}, {kind}: {error!r}")
        kinds[kind] = kinds.get(kind, 0) + 1

    await asyncio.gather(*(guarded(number) for number in range(first, first + count)))


async def wait_idle(address):
    """What does not go back to zero, empty if all does."""
    names = ("mobius_requests_running", "mobius_requests_waiting", 'mobius_kv_pages{state="used"}')
    deadline = time.monotonic() + IDLE_SECONDS
    while True:
        values = {name: await wire.gauge(address, name) for name in names}
        left = [f"{name} is {value:g} after {IDLE_SECONDS} s" for name, value in values.items() if value]
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.2)


async def run(arguments, server):
    address, failures, kinds = server.address, [], {}
    reference = []
    for index in range(20):
        body = body_of(random.Random(f"reference/{arguments.seed}/{index}"))
        status, answer = await wire.complete(address, body)
        if status != 200:
            raise wire.Broken(f"{status} {answer}")
        reference.append((body, answer["choices"][0]["text"]))
    warm = arguments.requests // 10
    start = time.monotonic()
    await batch(address, 0, warm, arguments.seed, reference, failures, kinds)
    failures += await wait_idle(address)
    before = server.resident_bytes()
    await batch(address, warm, arguments.requests - warm, arguments.seed, reference, failures, kinds)
    failures += await wait_idle(address)
    await answered(address, random.Random(0), reference)
    after = server.resident_bytes()
    if after > MEMORY_GROWTH * before:
        failures.append(f"resident memory went from {before} to {after} bytes")
    return report(arguments, f"tests/reliability/churn.py --requests {arguments.requests} --seed {arguments.seed}",
                  failures, requests=arguments.requests, kinds=kinds, seconds=round(time.monotonic() - start, 1),
                  resident_bytes_after_a_tenth=before, resident_bytes_at_the_end=after,
                  growth_percent=round(100 * (after / before - 1), 2))


def main():
    arguments = arguments_of(__doc__, requests=(10000, "in all"))
    # A pool that the first tenth fills, so that its pages are resident before memory is looked at.
    settings = {"engine.max_running": 16, "kv.bytes": 16 << 20, "log.level": "error"}
    with TinyServer(arguments, **settings) as server:
        code = asyncio.run(run(arguments, server))
        if not server.alive:
            print("the server died:\n" + server.log()[-2000:])
            return 1
        return code


if __name__ == "__main__":
    sys.exit(main())
