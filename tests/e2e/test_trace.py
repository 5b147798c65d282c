"""W3C trace context: `traceparent` in, log lines and `traceresponse` out, over HTTP and gRPC."""

import re

import pytest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"


def span_of(response):
    found = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", response or "")
    assert found, response
    assert found[1] != PARENT
    return found[1]


def check_line(line, span, with_parent=True):
    assert (line["trace_id"], line["span_id"]) == (TRACE, span)
    assert line.get("parent_id") == (PARENT if with_parent else None)


def test_an_answer_belongs_to_its_clients_trace(server):
    status, headers, _ = server.post_for_headers(
        "/v1/completions", {"prompt": "x", "max_tokens": 1}, {"traceparent": HEADER})
    assert status == 200
    span = span_of(headers.get("traceresponse"))
    check_line(server.wait_for_log("request", lambda line: line.get("span_id") == span), span)
    check_line(server.wait_for_log("generation", lambda line: line.get("span_id") == span), span, False)
    _, again, _ = server.post_for_headers(
        "/v1/completions", {"prompt": "x", "max_tokens": 1}, {"traceparent": HEADER})
    assert span_of(again["traceresponse"]) != span


def test_a_stream_and_a_refusal_do_too(server, start_server):
    connection = server.connect()
    connection.request("POST", "/v1/completions", '{"prompt": "x", "max_tokens": 1, "stream": true}',
                       {"Content-Type": "application/json", "traceparent": HEADER})
    response = connection.getresponse()
    response.read()
    span_of(response.getheader("traceresponse"))
    connection.close()
    closed = start_server(security__key_file=_keys(server))
    status, headers, _ = closed.post_for_headers("/v1/completions", {"prompt": "x"}, {"traceparent": HEADER})
    assert status == 401
    span = span_of(headers.get("traceresponse"))
    check_line(closed.wait_for_log("refused"), span)


def _keys(server):
    file = server.folder / "trace-keys"
    file.write_text("alice mk-0123456789abcdef0123456789abcdef\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("header", [
    "", "nonsense", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", HEADER.upper(), HEADER + "-x"])
def test_an_invalid_trace_is_ignored(server, header):
    status, headers, answer = server.post_for_headers(
        "/v1/completions", {"prompt": "x", "max_tokens": 1}, {"traceparent": header})
    assert status == 200
    assert "traceresponse" not in headers
    line = server.wait_for_log("request", lambda line: line["request_id"] == headers["x-request-id"])
    assert not {"trace_id", "parent_id", "span_id"} & set(line)
    line = server.wait_for_log("generation", lambda line: line["id"] == answer["id"])
    assert not {"trace_id", "span_id"} & set(line)


def test_two_parents_are_none(server):
    with server.raw() as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\ntraceparent: {HEADER}\r\n"
                           f"traceparent: {HEADER}\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"traceresponse" not in answer


def test_grpc_carries_it_as_metadata(server, grpc_client):
    grpc_client.metadata = [("traceparent", HEADER)]
    try:
        call = grpc_client.generate(text="x", options={"max_tokens": 1})
        span = span_of(dict(call.initial_metadata()).get("traceresponse"))
        list(call)
        check_line(server.wait_for_log("call", lambda line: line.get("span_id") == span), span)
        check_line(server.wait_for_log("generation", lambda line: line.get("span_id") == span), span, False)
        grpc_client.metadata = [("traceparent", "nonsense")]
        call = grpc_client.generate(text="x", options={"max_tokens": 1})
        assert "traceresponse" not in dict(call.initial_metadata())
        list(call)
    finally:
        grpc_client.metadata = []
