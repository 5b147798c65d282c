"""Who may use the server, and how much: API keys, limits of each key, request ids, and what logs say of it."""

import os
import re
import signal
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server import sse_data

ALICE = "mk-alice-0123456789abcdef"
BOB = "mk-bob-0123456789abcdef01"
CAROL = "mk-carol-0123456789abcdef"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PROMPT = {"prompt": "x", "max_tokens": 1}


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def replace(file, text):
    """As secret stores do: readers see the old file or the new one."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# test\nalice {ALICE}\nbob {BOB}\n")
    return file


@pytest.fixture
def guarded(start_server, key_file):
    return start_server(
        environment={"MOBIUS_SECURITY_API_KEYS": CAROL}, security__key_file=key_file
    )


def grpc_client(server, key=None):
    client = server.grpc_client()
    if key is not None:
        client.metadata = [("authorization", f"Bearer {key}")]
    return client


def refusal(client, **fields):
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as error:
        list(client.generate(text="x", **fields))
    return error.value


def test_without_a_key_there_is_an_openai_error(guarded):
    for headers in ({}, bearer("wrong"), bearer(ALICE[:-1]), {"Authorization": f"Basic {ALICE}"}):
        status, answer_headers, answer = guarded.post_for_headers(COMPLETIONS, PROMPT, headers)
        assert status == 401
        assert answer_headers["WWW-Authenticate"] == "Bearer"
        error = answer["error"]
        assert error["code"] == "invalid_api_key"
        assert set(error) == {"message", "type", "param", "code"}
        assert ALICE[:8] not in error["message"]


@pytest.mark.parametrize("key", [ALICE, BOB, CAROL], ids=["file", "file2", "environment"])
def test_with_a_key_requests_are_answered(guarded, key):
    assert guarded.post(COMPLETIONS, PROMPT, bearer(key))[0] == 200
    assert guarded.request("GET", "/v1/models", headers=bearer(key))[0] == 200
    client = grpc_client(guarded, key)
    assert len(list(client.generate(text="x", options={"max_tokens": 1}))) >= 1
    client.close()


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("POST", CHAT),
        ("POST", COMPLETIONS),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("POST", "/v1/chat/completions/render"),
        ("GET", "/nothing"),
        ("POST", "/health/../v1/models"),
        ("GET", "//v1/models"),
    ],
)
def test_what_needs_a_key(guarded, method, path):
    assert guarded.request(method, path)[0] == 401


def test_what_needs_none(guarded):
    for path in ("/health", "/ready", "/metrics", "/", "/web/app.js"):
        assert guarded.request("GET", path)[0] == 200, path
    client = grpc_client(guarded)
    assert "mobius.v1.Mobius" in client.services
    answer = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    client.close()


def test_metrics_can_need_one(start_server, key_file):
    server = start_server(security__key_file=key_file, security__metrics_need_key="true")
    assert server.request("GET", "/metrics")[0] == 401
    assert server.request("GET", "/metrics", headers=bearer(ALICE))[0] == 200
    assert server.request("GET", "/health")[0] == 200


def test_grpc_refuses_without_a_key(guarded):
    for key in (None, "wrong", ALICE + "x"):
        client = grpc_client(guarded, key)
        assert refusal(client).code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as error:
            list(client.chat(messages=[{"role": "user", "content": "x"}]))
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        client.close()


def test_grpc_takes_one_authorization_only(guarded):
    client = guarded.grpc_client()
    client.metadata = [("authorization", f"Bearer {key}") for key in ("wrong", ALICE)]
    assert refusal(client).code() == grpc.StatusCode.UNAUTHENTICATED
    client.close()


def test_a_body_without_a_key_is_not_read(guarded):
    with guarded.raw() as connection:
        connection.sendall(
            f"POST {COMPLETIONS} HTTP/1.1\r\nHost: h\r\nContent-Length: 30000000\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"100 Continue" not in answer


def test_keys_are_checked_for_every_request_of_a_connection(guarded, key_file):
    connection = guarded.connect()
    connection.request("GET", "/v1/models", headers=bearer(ALICE))
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read()
    connection.request("GET", "/v1/models")
    answer = connection.getresponse()
    assert answer.status == 401 and answer.read()
    connection.close()


def test_keys_are_read_again_when_the_file_changes(guarded, key_file):
    client = grpc_client(guarded, ALICE)
    # Begun with a key that goes: not cut off.
    call = client.generate(text="x", options={"max_tokens": 300, "ignore_eos": True})
    next(call)
    replace(key_file, f"bob {BOB}\ndave mk-dave-0123456789abcdef\n")
    guarded.wait_for_log("keys_loaded", lambda line: line["keys"] == 3)
    assert guarded.post(COMPLETIONS, PROMPT, bearer(ALICE))[0] == 401
    assert guarded.post(COMPLETIONS, PROMPT, bearer("mk-dave-0123456789abcdef"))[0] == 200
    assert guarded.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200
    assert guarded.post(COMPLETIONS, PROMPT, bearer(CAROL))[0] == 200
    assert refusal(client).code() == grpc.StatusCode.UNAUTHENTICATED
    assert list(call)[-1].finished.usage.completion_tokens == 300
    client.close()


def test_sighup_reads_the_keys(guarded):
    guarded.process.send_signal(signal.SIGHUP)
    guarded.wait_for_log("keys_loaded", lambda line: line["keys"] == 3)
    assert guarded.post(COMPLETIONS, PROMPT, bearer(ALICE))[0] == 200


def test_a_broken_file_locks_nobody_out(guarded, key_file):
    replace(key_file, f"alice {ALICE}\nbob short\n")
    line = guarded.wait_for_log("keys_not_loaded")
    assert "line 2" in line["error"] and "short" not in line["error"]
    assert guarded.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200
    os.remove(key_file)
    guarded.wait_for_log("keys_not_loaded", lambda entry: "No such file" in entry["error"])
    assert guarded.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200


def test_a_pipe_in_the_files_place_holds_nothing_up(guarded, key_file):
    os.remove(key_file)
    os.mkfifo(key_file)  # nobody will ever write to it
    guarded.wait_for_log("keys_not_loaded", lambda entry: "not a regular file" in entry["error"])
    assert guarded.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200
    os.remove(key_file)
    key_file.write_text(f"bob {BOB}\n")
    guarded.wait_for_log("keys_loaded", lambda line: line["keys"] == 2)
    assert guarded.stop() == 0


def test_keys_may_come_from_a_pipe(start_server, key_file):
    pipe, end = os.pipe()
    os.write(end, key_file.read_bytes())
    os.close(end)
    # Opened anew through /proc, as a shell's <(...) is.
    server = start_server(security__key_file=f"/proc/{os.getpid()}/fd/{pipe}")
    os.close(pipe)
    assert server.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("keys_not_loaded")
    assert server.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200


def test_the_server_listens_anywhere_with_a_key(start_server, key_file):
    server = start_server(http__address="0.0.0.0", security__key_file=key_file)
    server.http_address = ("127.0.0.1", server.http_address[1])
    # It says that keys would be read on the way; with a key it says no more than that.
    assert "encrypted" in server.wait_for_log("open_to_others")["text"]
    assert len(server.log_lines("open_to_others")) == 1
    assert server.post(COMPLETIONS, PROMPT)[0] == 401
    assert server.post(COMPLETIONS, PROMPT, bearer(ALICE))[0] == 200


# ---- limits of each key --------------------------------------------------------------------------


def test_requests_per_minute(start_server, key_file):
    key_file.write_text(f"alice {ALICE} requests_per_minute=2\nbob {BOB}\n")
    server = start_server(security__key_file=key_file)
    for _ in range(2):
        assert server.post(COMPLETIONS, PROMPT, bearer(ALICE))[0] == 200
    status, headers, answer = server.post_for_headers(COMPLETIONS, PROMPT, bearer(ALICE))
    assert status == 429
    assert 1 <= int(headers["Retry-After"]) <= 30
    error = answer["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "2 requests per minute" in error["message"]
    # The same key over the other protocol, and nobody else's.
    client = grpc_client(server, ALICE)
    error = refusal(client)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    pushback = int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])
    assert 1000 <= pushback <= 30000
    client.close()
    assert server.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200
    # What costs nothing is not limited.
    assert server.request("GET", "/v1/models", headers=bearer(ALICE))[0] == 200


def test_tokens_per_minute(start_server, key_file):
    server = start_server(security__key_file=key_file, security__tokens_per_minute=50)
    body = {"prompt": list(range(10, 70)), "max_tokens": 1}
    # The first may exceed what is there: how long an answer will be is not known before.
    assert server.post(COMPLETIONS, body, bearer(ALICE))[0] == 200
    status, headers, answer = server.post_for_headers(COMPLETIONS, body, bearer(ALICE))
    assert status == 429 and int(headers["Retry-After"]) >= 1
    assert "50 tokens per minute" in answer["error"]["message"]
    assert server.post(COMPLETIONS, body, bearer(BOB))[0] == 200


def test_tokens_of_answers_count(start_server, key_file):
    server = start_server(security__key_file=key_file, security__tokens_per_minute=50)
    client = grpc_client(server, ALICE)
    list(client.generate(text="x", options={"max_tokens": 80, "ignore_eos": True}))
    assert refusal(client).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    client.close()
    assert server.post(COMPLETIONS, PROMPT, bearer(ALICE))[0] == 429


def test_requests_at_a_time(start_server, key_file):
    server = start_server(security__key_file=key_file, security__concurrent_requests=1)
    client = grpc_client(server, ALICE)
    call = client.generate(text="x", options={"max_tokens": 8000, "ignore_eos": True})
    next(call)
    assert server.post(COMPLETIONS, PROMPT, bearer(ALICE))[0] == 429
    assert refusal(client).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.post(COMPLETIONS, PROMPT, bearer(BOB))[0] == 200
    call.cancel()
    server.wait_for_log("call", lambda line: line["status"] == "cancelled")
    # The place comes back when gRPC is done with the call, a moment after its line.
    server.wait_idle()
    wait_until(lambda: server.post(COMPLETIONS, PROMPT, bearer(ALICE))[0] == 200)
    client.close()


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
    raise AssertionError("the condition does not come to hold")


def test_limits_hold_without_keys_too(start_server):
    server = start_server(security__requests_per_minute=1)
    assert server.complete("x", max_tokens=1)[0] == 200
    assert server.complete("x", max_tokens=1)[0] == 429
    assert server.get("/health")[0] == 200


def test_refusals_are_counted(guarded):
    guarded.post(COMPLETIONS, PROMPT)
    metrics = guarded.request("GET", "/metrics")[2].decode()
    assert re.search(r'outcome="unauthenticated"\} 1|code="unauthenticated"\} 1', metrics), metrics


# ---- request ids ---------------------------------------------------------------------------------


def test_every_answer_names_its_request(server):
    for method, path, body in (
        ("GET", "/health", None),
        ("GET", "/nothing", None),
        ("POST", COMPLETIONS, b'{"prompt": "x", "max_tokens": 1}'),
        ("POST", COMPLETIONS, b"{"),
        ("PUT", COMPLETIONS, b"x"),
    ):
        _, headers, _ = server.request(method, path, body)
        assert re.fullmatch("req-[0-9a-f]{32}", headers["x-request-id"]), path
        _, headers, _ = server.request(method, path, body, {"X-Request-ID": "my-id/1"})
        assert headers["x-request-id"] == "my-id/1"


@pytest.mark.parametrize("offered", ["a b", "x" * 129, 'q"', "a;b"])
def test_an_id_that_could_confuse_a_log_is_replaced(server, offered):
    _, headers, _ = server.request("GET", "/health", headers={"x-request-id": offered})
    assert headers["x-request-id"].startswith("req-")


def test_streams_and_malformed_requests_have_one_too(server):
    with server.open_stream(COMPLETIONS, PROMPT) as response:
        assert response.getheader("x-request-id").startswith("req-")
        assert sse_data(response.read().decode())[-1] == "[DONE]"
    with server.raw() as connection:
        connection.sendall(b"NOT HTTP\r\n\r\n")
        assert b"\r\nx-request-id: req-" in connection.recv(4096)


def test_the_log_ties_a_generation_to_its_request(start_server):
    server = start_server()
    server.post(COMPLETIONS, PROMPT, {"x-request-id": "trace-1"})
    client = server.grpc_client()
    client.metadata = [("x-request-id", "trace-2")]
    call = client.generate(text="x", options={"max_tokens": 1})
    assert dict(call.initial_metadata())["x-request-id"] == "trace-2"
    list(call)
    client.close()
    assert server.stop() == 0
    for event, request in (("request", "trace-1"), ("call", "trace-2")):
        assert [line["request_id"] for line in server.log_lines(event)] == [request]
    assert [line["request_id"] for line in server.log_lines("generation")] == ["trace-1", "trace-2"]


# ---- what logs hold ------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_logs_hold_no_keys_and_no_prompts(start_server, key_file, log_format):
    """Everything that a client can send, at the most talkative level, and then the log read back."""
    server = start_server(
        environment={"MOBIUS_SECURITY_API_KEYS": CAROL},
        security__key_file=key_file,
        security__requests_per_minute=40,
        log__level="trace",
        log__format=log_format,
    )
    secret = "xylophone"
    wrong = f"mk-{secret}-0123456789"
    for key in (ALICE, CAROL, wrong):
        client = grpc_client(server, key)
        for headers in (bearer(key), {"Authorization": key}, {"x-api-key": key}):
            server.post(CHAT, {"messages": [{"role": "user", "content": secret}], "max_tokens": 2}, headers)
            server.post(COMPLETIONS, {"prompt": secret, "max_tokens": 2, "stop": [secret]}, headers)
            server.post(COMPLETIONS, {"prompt": "x", secret: 1}, headers)
            server.post(COMPLETIONS, {"prompt": secret, "temperature": secret}, headers)
            server.post(COMPLETIONS, f'{{"prompt": "{secret}'.encode(), headers)
            server.post("/tokenize", {"prompt": secret}, headers)
            server.request("GET", f"/v1/models?api_key={key}", headers=headers)
            server.request("GET", f"/v1/models#{key}", headers=headers)
        for fields in ({"text": secret}, {"model": secret, "text": secret}, {}):
            try:
                list(client.generate(**fields, options={"max_tokens": 2}))
            except grpc.RpcError:
                pass
        client.close()
    with server.raw() as connection:
        connection.sendall(f"GET /health {secret}\r\nAuthorization: Bearer {ALICE}\r\n\r\n".encode())
        connection.recv(4096)
    with socket.create_connection(server.http_address) as connection:
        connection.sendall(f"{secret}\r\n\r\n".encode())
        connection.recv(4096)
    replace(key_file, f"alice {ALICE}\n{BOB}\n")
    for _ in range(3):
        server.process.send_signal(signal.SIGHUP)
    end = "keys_not_loaded"
    wait_until(lambda: end in server.log.read_text() or server.get("/health")[0] != 200)
    assert server.stop() == 0
    server_output = (server.folder / "output.txt").read_text()
    for text in (server.log.read_text(), server_output):
        for word in (secret, ALICE, BOB, CAROL, ALICE[3:], "0123456789abcdef"):
            assert word not in text, [line for line in text.splitlines() if word in line]
    text = server.log.read_text()
    assert "alice" in text and "environment-1" in text and end in text, "keys go by their names"
