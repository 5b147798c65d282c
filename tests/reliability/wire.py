"""Completions over bare connections, as many at a time as there are files: asyncio and nothing else."""

import asyncio
import json

PATH = "/v1/completions"


class Broken(Exception):
    """The server did what no client should have to expect."""


def post(body, path=PATH):
    """The bytes of a request; `body` is JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


async def read_head(reader):
    """(status, headers in lower case)"""
    status_line = await reader.readline()
    parts = status_line.split()
    if len(parts) < 2 or not parts[1].isdigit():
        raise Broken(f"no status line: {status_line!r}")
    headers = {}
    while (line := (await reader.readline()).strip()):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return int(parts[1]), headers


async def pieces_of(reader, headers):
    """The parts of a body, as they come."""
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", 0)))
        return
    while (size := int(await reader.readline(), 16)) > 0:
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()


async def body_of(reader, headers):
    return b"".join([piece async for piece in pieces_of(reader, headers)])


async def events_of(reader, headers):
    """Data events of an SSE stream as objects; the last one is None, for [DONE]."""
    rest = b""
    async for piece in pieces_of(reader, headers):
        *blocks, rest = (rest + piece).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: "):
                data = block[len(b"data: "):]
                yield None if data == b"[DONE]" else json.loads(data)
    if rest:
        raise Broken(f"the stream ends within an event: {rest!r}")


class Connection:
    """`async with Connection(address) as (reader, writer)`"""

    def __init__(self, address):
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self.reader, self.writer

    async def __aexit__(self, *_):
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


async def complete(address, body):
    """(status, answer) of a request that is not streamed."""
    async with Connection(address) as (reader, writer):
        writer.write(post(body))
        status, headers = await read_head(reader)
        return status, json.loads(await body_of(reader, headers))


async def get(address, path):
    async with Connection(address) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n".encode())
        status, headers = await read_head(reader)
        return status, (await body_of(reader, headers)).decode()


async def gauge(address, name):
    """A sample of /metrics, named with its labels but for the model's: 'mobius_kv_pages{state="used"}'."""
    _, text = await get(address, "/metrics")
    want, _, label = name.partition("{")
    for line in text.splitlines():
        if line.startswith(want + "{") and label.rstrip("}") in line:
            return float(line.rsplit(" ", 1)[1])
    raise Broken(f"/metrics has no {name}")
