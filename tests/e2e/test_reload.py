"""Settings that change while the server runs."""

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

COMPLETIONS = "/v1/completions"
PROMPT = {"prompt": "a", "max_tokens": 1}


def write(file, **sections):
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(sections))
    draft.rename(file)


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "config.json"
    write(file)
    return file


@pytest.fixture
def server(start_server, config_file):
    return start_server(environment={"MOBIUS_CONFIG": str(config_file)})


def changed(server, key):
    server.wait_for_log("config_changed", lambda line: line["key"] == key)


def test_limits_change_when_the_file_does(server, config_file):
    assert all(server.post(COMPLETIONS, PROMPT)[0] == 200 for _ in range(3))
    write(config_file, security={"requests_per_minute": 2})
    changed(server, "security.requests_per_minute")
    server.wait_for_log("keys_loaded")
    statuses = [server.post(COMPLETIONS, PROMPT)[0] for _ in range(4)]
    assert statuses[:2] == [200, 200] and 429 in statuses
    write(config_file)
    server.wait_for_log("keys_loaded", lambda line: len(server.log_lines("keys_loaded")) >= 2)
    assert all(server.post(COMPLETIONS, PROMPT)[0] == 200 for _ in range(5))


def test_a_running_answer_does_not_notice(server, config_file):
    client = server.grpc_client()
    call = client.generate(text="x", options={"max_tokens": 300, "ignore_eos": True})
    next(call)
    write(config_file, security={"concurrent_requests": 1}, log={"level": "debug"})
    changed(server, "security.concurrent_requests")
    assert list(call)[-1].finished.usage.completion_tokens == 300
    client.close()


def test_no_request_is_lost_while_all_of_it_changes(start_server, tmp_path):
    """Keys, limits and the log's level, again and again, under load."""
    keys = [f"mk-{name}-0123456789abcdef" for name in ("alice", "bob", "carol")]
    key_file, config_file = tmp_path / "keys", tmp_path / "config.json"

    def write_keys(turn):
        draft = key_file.with_suffix(".draft")
        others = [f"other{turn} mk-other-{turn:020}\n"]
        draft.write_text("".join([f"user{i} {key}\n" for i, key in enumerate(keys)] + others))
        draft.rename(key_file)

    write_keys(0)
    write(config_file)
    server = start_server(environment={"MOBIUS_CONFIG": str(config_file)}, security__key_file=key_file)
    body = {"prompt": "x", "max_tokens": 150, "ignore_eos": True, "temperature": 0}
    stop = threading.Event()
    _, expected = server.post(COMPLETIONS, body, {"Authorization": f"Bearer {keys[0]}"})

    def ask(key):
        answered = 0
        while not stop.is_set():
            status, answer = server.post(COMPLETIONS, body, {"Authorization": f"Bearer {key}"})
            assert (status, answer.get("choices")) == (200, expected["choices"]), answer
            answered += 1
        return answered

    with ThreadPoolExecutor(2 * len(keys)) as pool:
        clients = [pool.submit(ask, key) for key in keys + keys]
        try:
            for turn in range(1, 13):
                write_keys(turn)
                write(config_file, log={"level": ("error", "debug")[turn % 2]},
                      security={"requests_per_minute": 1_000_000 + turn, "concurrent_requests": 100 + turn})
                server.process.send_signal(signal.SIGHUP)
                end = time.monotonic() + 60  # the newest key counts: all of it was read
                newest = {"Authorization": f"Bearer mk-other-{turn:020}"}
                while server.post("/tokenize", {"prompt": "x"}, newest)[0] != 200:
                    assert time.monotonic() < end
                    time.sleep(0.02)
        finally:
            stop.set()
        assert all(client.result() > 0 for client in clients)
    gone = {"Authorization": f"Bearer mk-other-{1:020}"}
    assert server.post("/tokenize", {"prompt": "x"}, gone)[0] == 401


def test_the_log_level_changes(server, config_file):
    server.post(COMPLETIONS, PROMPT)
    server.wait_for_log("generation")
    write(config_file, log={"level": "error"})
    changed(server, "log.level")
    before = len(server.log_lines("generation"))
    for _ in range(3):
        server.post(COMPLETIONS, PROMPT)
    assert len(server.log_lines("generation")) == before
    write(config_file, log={"level": "info"})
    server.process.send_signal(signal.SIGHUP)
    # The change itself was made at level error, and is not logged.
    end = time.monotonic() + 60
    while len(server.log_lines("generation")) == before:
        assert time.monotonic() < end
        server.post(COMPLETIONS, PROMPT)


def test_what_needs_a_restart_is_named(server, config_file):
    write(config_file, engine={"max_running": 2})
    server.wait_for_log("config_needs_restart", lambda line: line["key"] == "engine.max_running")
    assert server.post(COMPLETIONS, PROMPT)[0] == 200


def test_a_broken_file_changes_nothing(server, config_file):
    config_file.write_text('{"security": {"requests_per_minute": -1}, "log": {"level": "error"}}')
    line = server.wait_for_log("config_not_loaded")
    assert "security.requests_per_minute: is -1" in line["error"]
    assert all(server.post(COMPLETIONS, PROMPT)[0] == 200 for _ in range(3))
    server.wait_for_log("generation")
