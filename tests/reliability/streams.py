#!/usr/bin/env python3
"""Many streams at once: is every one whole, and its own?

Each prompt is asked alone first. Then all are streamed at the same time, and every stream must give the same text, in
events of one id, with one finish reason, a usage that counts right, and nothing behind [DONE].
"""

import asyncio
import sys
import time

import wire
from common import TinyServer, arguments_of, report


def request(index, tokens, **more):
    return {"prompt": f"Stream number {index} of many, and the {index * 7919 % 10007}th of its kind:",
            "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more}


async def alone(address, indices, tokens, expected):
    for index in indices:
        status, answer = await wire.complete(address, request(index, tokens))
        if status != 200:
            raise wire.Broken(f"request {index} alone: {status} {answer}")
        expected[index] = answer["choices"][0]["text"], answer["usage"]


async def streamed(address, index, tokens, began, expected):
    """Empty, or what is wrong with the stream."""
    async with wire.Connection(address) as (reader, writer):
        writer.write(wire.post(request(index, tokens, stream=True, stream_options={"include_usage": True})))
        status, headers = await wire.read_head(reader)
        if status != 200:
            return f"stream {index}: status {status}: {await wire.body_of(reader, headers)!r}"
        text, ids, reasons, usage, done = "", set(), [], None, 0
        async for event in wire.events_of(reader, headers):
            if done:
                return f"stream {index}: an event behind [DONE]: {event}"
            if event is None:
                done += 1
                continue
            began.setdefault(index, time.monotonic())
            if "error" in event:
                return f"stream {index}: {event['error']}"
            ids.add(event["id"])
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text += choice["text"]
                reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
        if (text, usage, reasons, len(ids), done) != (*expected[index], ["length"], 1, 1):
            return (f"stream {index}: {text!r}, usage {usage}, reasons {reasons}, {len(ids)} ids, {done} [DONE]; "
                    f"expected {expected[index]}")
        return None


async def run(arguments, server):
    expected, began = {}, {}
    lanes = [range(lane, arguments.streams, 16) for lane in range(16)]
    await asyncio.gather(*(alone(server.address, lane, arguments.tokens, expected) for lane in lanes))
    start = time.monotonic()
    found = await asyncio.gather(
        *(streamed(server.address, index, arguments.tokens, began, expected) for index in range(arguments.streams)),
        return_exceptions=True)
    seconds = time.monotonic() - start
    failures = [str(problem) if isinstance(problem, str) else repr(problem) for problem in found if problem is not None]
    if not server.alive:
        failures.append("the server died: " + server.log()[-2000:])
    texts = {text for text, _ in expected.values()}
    return report(arguments, f"tests/reliability/streams.py --streams {arguments.streams} --tokens {arguments.tokens}",
                  failures, streams=arguments.streams, tokens_each=arguments.tokens, different_texts=len(texts),
                  seconds=round(seconds, 2), tokens_per_second=round(arguments.streams * arguments.tokens / seconds),
                  last_stream_began_after_seconds=round(max(began.values()) - start, 2),
                  resident_peak_mib=server.resident_bytes(peak=True) >> 20)


def main():
    arguments = arguments_of(__doc__, streams=(2000, "at the same time"), tokens=(32, "of each answer"))
    settings = {"engine.max_running": 64, "engine.max_waiting": arguments.streams,
                "http.max_connections": arguments.streams + 64, "kv.bytes": 64 << 20,
                # The last ones wait for all the others.
                "http.header_timeout_seconds": 600, "log.level": "warn"}
    with TinyServer(arguments, **settings) as server:
        return asyncio.run(run(arguments, server))


if __name__ == "__main__":
    sys.exit(main())
