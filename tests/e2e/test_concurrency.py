"""Many requests at once: the same answers as alone, and nobody loses by another's failure."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

COMPLETIONS = "/v1/completions"


def text_of(answer):
    return answer["choices"][0]["text"]


def test_same_seed_same_text_alone_and_in_a_crowd(server, grpc_client):
    prompts = [f"Chapter {i}. " * (1 + 20 * (i % 5)) for i in range(12)]

    def ask(i):
        return text_of(
            server.complete(prompts[i], max_tokens=40, seed=i, ignore_eos=True, temperature=1.0)[1]
        )

    def ask_grpc(i):
        options = {"max_tokens": 40, "seed": i, "ignore_eos": True, "temperature": 1.0}
        messages = grpc_client.generate(text=prompts[i], options=options)
        return "".join(
            m.token.text if m.WhichOneof("event") == "token" else m.finished.text for m in messages
        )

    alone = [ask(i) for i in range(len(prompts))]
    assert len(set(alone)) == len(alone), "seeds and prompts differ, so should the texts"
    with ThreadPoolExecutor(24) as pool:
        crowd = list(pool.map(ask, range(len(prompts))))
        crowd_grpc = list(pool.map(ask_grpc, range(len(prompts))))
    assert crowd == alone
    assert crowd_grpc == alone


def test_seed_in_the_answer_repeats_it(server):
    _, first = server.complete(max_tokens=20, ignore_eos=True)
    _, other = server.complete(max_tokens=20, ignore_eos=True)
    assert first["mobius"]["seed"] != other["mobius"]["seed"]
    _, again = server.complete(max_tokens=20, ignore_eos=True, seed=first["mobius"]["seed"])
    assert text_of(again) == text_of(first)


def test_a_negative_seed_is_repeated_as_it_was_sent(server):
    _, first = server.complete(max_tokens=20, ignore_eos=True, seed=-5, n=2)
    assert first["mobius"]["seed"] == first["choices"][0]["mobius"]["seed"] == -5
    assert first["choices"][1]["mobius"]["seed"] >= 0
    # Its bits are those of this number.
    _, same = server.complete(max_tokens=20, ignore_eos=True, seed=2**64 - 5)
    assert same["mobius"]["seed"] == 2**64 - 5
    assert text_of(same) == text_of(first)


def test_bad_neighbours_harm_nobody(server):
    expected = text_of(server.complete(max_tokens=100, seed=1, ignore_eos=True)[1])
    stop = threading.Event()
    done = []

    def misbehave(kind):
        while not stop.is_set():
            if kind == 0:
                server.post(COMPLETIONS, b'{"prompt": ')
            elif kind == 1:
                server.complete("x", max_tokens=-1)
            elif kind == 2:
                with server.open_stream(
                    COMPLETIONS, {"prompt": "y", "max_tokens": 5000, "ignore_eos": True}
                ) as response:
                    response.read(1)
            else:
                with server.raw() as connection:
                    connection.sendall(b"\x00garbage\r\n\r\n")
            done.append(kind)

    with ThreadPoolExecutor(8) as pool:
        troublemakers = [pool.submit(misbehave, kind) for kind in range(4)]
        try:
            for _ in range(8):
                _, answer = server.complete(max_tokens=100, seed=1, ignore_eos=True)
                assert text_of(answer) == expected
        finally:
            stop.set()
        for troublemaker in troublemakers:
            troublemaker.result()
    assert set(done) == {0, 1, 2, 3}
    server.wait_idle()


@pytest.mark.parametrize("stream", [True, False])
def test_disconnecting_cancels(server, stream):
    server.wait_idle()
    before = server.stats()["pages_used"]
    body = json.dumps(
        {"prompt": [3] * 2000, "max_tokens": 6000, "ignore_eos": True, "stream": stream}
    )
    with server.raw() as connection:
        connection.sendall(
            f"POST {COMPLETIONS} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        server.wait_until(lambda stats: stats["running"] == 1)
    server.wait_until(lambda stats: stats["running"] == 0 and stats["pages_used"] <= before)


@pytest.mark.parametrize("stream", [True, False])
def test_generations_without_a_client_are_logged(start_server, stream):
    server = start_server()
    body = json.dumps(
        {"prompt": [3] * 100, "max_tokens": 8000, "ignore_eos": True, "stream": stream}
    )
    with server.raw() as connection:
        connection.sendall(
            f"POST {COMPLETIONS} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        server.wait_until(lambda stats: stats["running"] == 1)
    line = server.wait_for_log("generation")
    assert line["outcome"] == "cancelled"
    assert line["protocol"] == "http"
    assert line["prompt_tokens"] == 100
    assert server.wait_for_log("request", lambda line: line["target"] == COMPLETIONS)["status"] in (
        200,
        499,
    )


def test_nobody_may_wait(start_server):
    server = start_server(engine__max_running=1, engine__max_waiting=0)
    with server.open_stream(
        COMPLETIONS, {"prompt": "a", "max_tokens": 8000, "ignore_eos": True}
    ) as running:
        running.read(1)
        assert server.complete("b", max_tokens=1)[0] == 429
    server.wait_idle()
    assert server.complete("c", max_tokens=1)[0] == 200


def test_bodies_in_flight_are_bounded(start_server):
    limit = 1 << 20
    server = start_server(
        server__max_queued_bytes=limit, http__max_body_bytes=limit, grpc__max_message_bytes=limit
    )
    with server.raw() as slow:
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n"
        slow.sendall(head.encode() + b'{"prompt": "' + b"x" * 800000)
        server.wait_until(lambda stats: stats["queued_bytes"] > 700000)
        status, answer = server.complete("y" * 400000)
        assert status == 429
        assert "server.max_queued_bytes" in answer["error"]["message"]
        assert str(limit) in answer["error"]["message"]
        assert server.complete("small", max_tokens=1)[0] == 200
        client = server.grpc_client()
        with pytest.raises(grpc.RpcError) as error:
            list(client.generate(text="z" * 400000))
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "server.max_queued_bytes" in error.value.details()
        client.close()
    server.wait_until(lambda stats: stats["queued_bytes"] == 0)
    assert server.complete("y" * 400000)[0] == 400, "too long, but read"


def test_deadline(server):
    body = {"max_tokens": 8000, "ignore_eos": True, "mobius": {"timeout_ms": 300}}
    status, answer = server.complete("x", **body)
    assert status == 504
    events = server.stream(COMPLETIONS, {"prompt": "x", **body})
    for error in (answer["error"], events[-1]["error"]):
        assert (error["code"], error["param"]) == ("deadline_exceeded", "mobius.timeout_ms")
        assert error["message"].startswith("mobius.timeout_ms is 300 ms; it passed after ")
    server.wait_idle()


def test_full_queue_refuses_and_recovers(start_server):
    server = start_server(engine__max_running=1, engine__max_waiting=1)
    long = {"max_tokens": 8000, "ignore_eos": True}
    with server.open_stream(COMPLETIONS, {"prompt": "a", **long}) as running:
        running.read(1)
        with server.open_stream(COMPLETIONS, {"prompt": "b", **long}):
            server.wait_until(lambda stats: stats["waiting"] == 1)
            status, answer = server.complete("c", max_tokens=1)
            assert status == 429
            assert answer["error"]["code"] == "rate_limit_exceeded"
            client = server.grpc_client()
            with pytest.raises(grpc.RpcError) as error:
                list(client.generate(text="c"))
            assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            client.close()
    server.wait_idle()
    assert server.complete("d", max_tokens=1)[0] == 200


def test_health_answers_while_prompts_run(server):
    """Long prompts and large bodies; what is asked is that health is not behind them."""

    def long_prompt(_):
        assert server.complete([5] * 4000, max_tokens=1)[0] == 200
        assert server.complete("z" * 3_000_000)[0] == 400

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(long_prompt, i) for i in range(3)]
        server.wait_until(lambda stats: stats["running"] > 0)
        answered = 0
        while not all(job.done() for job in jobs):
            assert server.get("/health")[0] == 200
            answered += 1
        for job in jobs:
            job.result()
    assert answered > len(jobs)


def test_many_connections(server):
    connections = [socket.create_connection(server.http_address) for _ in range(200)]
    assert server.complete("x", max_tokens=1)[0] == 200
    for connection in connections:
        connection.close()
