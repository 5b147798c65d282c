"""What clients do to a port when they do not speak HTTP well, or at all."""

import json
import random
import time

import pytest

BODY = json.dumps({"prompt": "x", "max_tokens": 2, "seed": 1})


def request_text(body=BODY, path="/v1/completions", extra=""):
    return (
        f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n{body}"
    ).encode()


def read_all(connection):
    data = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece


def read_response(connection):
    """One response with a Content-Length: (status, body), and nothing beyond it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"closed after {head!r}"
        head += byte
    lines = head.decode().split("\r\n")
    length = next(int(l.split(":")[1]) for l in lines if l.lower().startswith("content-length"))
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(lines[0].split()[1]), body


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"\x00" * 1000,
    ],
    ids=lambda garbage: repr(garbage[:24]),
)
def test_garbage_is_refused_and_closed(server, garbage):
    with server.raw() as connection:
        connection.sendall(garbage)
        connection.shutdown(1)
        answer = read_all(connection)
    assert answer == b"" or answer.split()[1] in (b"400", b"404", b"413")
    assert server.get("/health")[0] == 200


def test_random_bytes(server):
    generator = random.Random(1)
    for _ in range(50):
        with server.raw() as connection:
            connection.sendall(generator.randbytes(generator.randrange(1, 2000)))
            connection.shutdown(1)
            read_all(connection)
    assert server.get("/health")[0] == 200


@pytest.mark.parametrize("cut", [1, 10, 40, 80, 110])
def test_requests_that_stop_in_the_middle(server, cut):
    with server.raw() as connection:
        connection.sendall(request_text()[:cut])
    assert server.complete("x", max_tokens=1)[0] == 200


def test_huge_header(server):
    with server.raw() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: " + b"a" * 200000 + b"\r\n\r\n")
        assert read_response(connection)[0] == 431
    assert server.get("/health")[0] == 200


def test_announced_body_over_the_limit_is_refused_unread(server):
    with server.raw() as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert read_response(connection)[0] == 413


def test_chunked_body_over_the_limit(start_server):
    server = start_server(http__max_body_bytes=2048)
    with server.raw() as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(10):
            connection.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert read_response(connection)[0] == 413


@pytest.mark.parametrize(
    "end",
    [b"0\r\nT: " + b"x" * 200000 + b"\r\n\r\n", b"0\r\n" + b"T: x\r\n" * 100000 + b"\r\n", b"1;" + b"x" * 200000],
    ids=["one field", "many fields", "extension"],
)
def test_huge_trailers(server, end):
    with server.raw() as connection:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        try:
            connection.sendall(head + end)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert read_all(connection).split()[1:2] in ([], [b"431"], [b"400"])
    assert server.get("/health")[0] == 200


def test_one_byte_at_a_time(server):
    with server.raw() as connection:
        for byte in request_text():
            connection.sendall(bytes([byte]))
        status, body = read_response(connection)
    assert status == 200 and json.loads(body)["usage"]["completion_tokens"] <= 2


def test_pipelined_requests_are_answered_in_order(server):
    with server.raw() as connection:
        bodies = [json.dumps({"prompt": "x", "max_tokens": n, "ignore_eos": True}) for n in (5, 1, 3)]
        connection.sendall(b"".join(request_text(body) for body in bodies))
        counts = []
        for _ in bodies:
            status, body = read_response(connection)
            assert status == 200
            counts.append(json.loads(body)["usage"]["completion_tokens"])
    assert counts == [5, 1, 3]


def test_a_request_sent_during_a_stream_is_answered_after_it(server):
    stream = json.dumps({"prompt": "x", "max_tokens": 50, "ignore_eos": True, "stream": True})
    with server.raw() as connection:
        connection.sendall(request_text(stream))
        first = connection.recv(1000)
        assert first.startswith(b"HTTP/1.1 200")
        connection.sendall(request_text(extra="Connection: close\r\n"))
        rest = read_all(connection)
    assert (first + rest).count(b"HTTP/1.1 200") == 2
    assert rest.index(b"data: [DONE]") < rest.rindex(b"HTTP/1.1 200")


def test_expect_continue(server):
    with server.raw() as connection:
        text = request_text(extra="Expect: 100-continue\r\n")
        head, body = text.split(b"\r\n\r\n", 1)
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert read_response(connection)[0] == 200


def test_http_1_0_streams_until_close(server):
    body = json.dumps({"prompt": "x", "max_tokens": 3, "stream": True})
    text = request_text(body).replace(b"HTTP/1.1", b"HTTP/1.0")
    with server.raw() as connection:
        connection.sendall(text)
        answer = read_all(connection)
    head, data = answer.split(b"\r\n\r\n", 1)
    assert b"chunked" not in head
    assert data.startswith(b"data: ") and data.endswith(b"data: [DONE]\n\n")


def test_slow_header_times_out(start_server):
    server = start_server(http__header_timeout_seconds=1)
    with server.raw() as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\n")
        assert read_response(connection)[0] == 408
    with server.raw() as connection:
        connection.sendall(b"G")
        assert read_response(connection)[0] == 408


def test_slow_body_and_idle_connections_time_out(start_server):
    server = start_server(http__body_timeout_seconds=1, http__idle_timeout_seconds=1)
    with server.raw() as connection:
        connection.sendall(request_text()[:-5])
        assert read_response(connection)[0] == 408
    with server.raw() as connection:
        assert read_all(connection) == b""


def test_client_that_does_not_read_is_cut_off(start_server):
    server = start_server(http__write_timeout_seconds=1)
    body = json.dumps(
        {"prompt": "x", "max_tokens": 8000, "ignore_eos": True, "stream": True, "logprobs": 20}
    )
    with server.raw(timeout=60) as connection:
        connection.sendall(request_text(body))
        connection.recv(100)
        # Not read: the kernel's buffers fill, the write times out, the request is cancelled.
        server.wait_until(lambda stats: stats["running"] == 0, seconds=60)
    assert server.get("/health")[0] == 200


def test_too_many_connections(start_server):
    server = start_server(http__max_connections=4)
    idle = [server.raw() for _ in range(4)]
    time.sleep(0.2)
    with server.raw() as refused:
        assert read_all(refused) == b""
    for connection in idle:
        connection.close()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if server.get("/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail("closed connections still count")


def test_a_refused_request_does_not_end_the_connection(server):
    with server.raw() as connection:
        connection.sendall(request_text('{"prompt": 5}'))
        assert read_response(connection)[0] == 400
        connection.sendall(request_text(path="/nowhere"))
        assert read_response(connection)[0] == 404
        connection.sendall(request_text())
        assert read_response(connection)[0] == 200


def test_head_has_no_body(server):
    with server.raw() as connection:
        connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\n")
