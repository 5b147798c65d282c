"""A model, a device or weights that fail: what clients, probes and supervisors see."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time

import grpc
import pytest

from server import FAULTY, START_SECONDS, sse_data

COMPLETIONS = "/v1/completions"
ENDLESS = {"max_tokens": 8000, "ignore_eos": True}
CAUSE = "CUDA error 700: an illegal memory access was encountered in layer 3"


@pytest.fixture
def faults(tmp_path):
    """The folder whose files are the faults."""
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder


@pytest.fixture
def start_faulty(start_server, faults):
    return lambda **settings: start_server(
        environment={"MOBIUS_FAULTS": str(faults)}, binary=FAULTY, **settings)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def status_of(server, path):
    """None: nobody listens any more, or goes before the answer."""
    try:
        return server.request("GET", path)[0]
    except (OSError, http.client.HTTPException):
        return None


@pytest.fixture
def loading(start_faulty, faults):
    """A server whose model is being loaded, for as long as the file `hold` is there."""
    (faults / "hold").touch()
    port = free_port()
    server = start_faulty(http__port=port, wait=False)
    server.http_address = ("127.0.0.1", port)
    server.tls = None
    end = time.monotonic() + START_SECONDS
    while status_of(server, "/health") != 200:
        assert time.monotonic() < end and server.process.poll() is None
        time.sleep(0.02)
    return server


def test_health_answers_while_the_model_is_loaded(loading, faults):
    assert loading.get("/health") == (200, {"status": "ok"})
    assert loading.get("/ready") == (503, {"status": "loading"})
    assert loading.request("GET", "/")[0] == 200
    for path in ("/metrics", "/v1/models", "/v1/models/tiny"):
        assert loading.get(path)[0] == 503
    for path in (COMPLETIONS, "/v1/chat/completions", "/tokenize"):
        status, answer = loading.post(path, {"prompt": "x"})
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        assert "being loaded" in answer["error"]["message"]
    assert loading.get("/nothing")[0] == 404
    kept = loading.connect()  # one connection from before the model to behind it
    kept.request("GET", "/ready")
    assert kept.getresponse().read() == b'{"status":"loading"}'
    (faults / "hold").unlink()
    loading.wait_for_ports()
    kept.request("POST", COMPLETIONS, json.dumps({"prompt": "x", "max_tokens": 1}))
    assert kept.getresponse().status == 200
    kept.close()
    assert loading.get("/ready")[0] == 200


def test_a_signal_while_the_model_is_loaded_ends_at_once(loading, faults):
    loading.process.send_signal(signal.SIGTERM)
    assert loading.process.wait(timeout=START_SECONDS) == 0
    assert loading.log_lines("stopped")
    assert (faults / "hold").exists()


def test_a_model_that_cannot_be_loaded_ends_the_server(loading, faults):
    (faults / "load").write_text(CAUSE)
    (faults / "hold").unlink()
    assert loading.process.wait(timeout=START_SECONDS) == 1
    assert (loading.folder / "output.txt").read_text().endswith(f"mobius: {CAUSE}\n")


def test_a_model_without_a_first_token_is_never_ready(loading, faults):
    (faults / "wait").write_text(CAUSE)
    (faults / "hold").unlink()
    while loading.process.poll() is None:
        assert status_of(loading, "/ready") in (503, None)
    assert loading.process.returncode == 1
    assert (loading.folder / "output.txt").read_text().endswith(f"mobius: {CAUSE}\n")


class Clients:
    """One of each kind that waits for an answer: streamed and whole over HTTP, gRPC, and one in the queue."""

    def __init__(self, server):
        self.server = server
        self.whole = None
        self.client = server.grpc_client()
        self.call = self.client.generate(text="x", options=ENDLESS)
        next(self.call)
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()
        self.streams = contextlib.ExitStack()
        self.stream = self._open()
        self.first = self.stream.readline()
        server.wait_until(lambda stats: stats["running"] == 3)
        self.queued = self._open()
        server.wait_until(lambda stats: stats["waiting"] == 1)

    def _open(self):
        return self.streams.enter_context(self.server.open_stream(COMPLETIONS, {"prompt": "x", **ENDLESS}))

    def _ask(self):
        self.whole = self.server.complete("x", **ENDLESS)

    def check_told(self, secret):
        """Each gets an error of its own protocol, with a code and without what is for the log."""
        for response, first in ((self.stream, self.first), (self.queued, b"")):
            data = (first + response.read()).decode()
            assert secret not in data
            if response.status == 200:
                events = sse_data(data)
                assert events[-1] == "[DONE]"
                error = json.loads(events[-2])["error"]
            else:
                assert response.status == 500
                error = json.loads(data)["error"]
            assert error["code"] == "internal"
            assert "the model failed" in error["message"]
        self.streams.close()
        self.thread.join()
        status, answer = self.whole
        assert (status, answer["error"]["code"]) == (500, "internal")
        assert secret not in json.dumps(answer)
        with pytest.raises(grpc.RpcError) as error:
            list(self.call)
        assert error.value.code() == grpc.StatusCode.INTERNAL
        assert secret not in error.value.details()
        self.client.close()


@pytest.mark.parametrize("where", ["submit", "wait"])
def test_a_device_that_fails_ends_every_request_and_the_server(start_faulty, faults, where):
    server = start_faulty(engine__max_running=3)
    clients = Clients(server)
    (faults / f"{where}.draft").write_text(CAUSE)
    (faults / f"{where}.draft").rename(faults / where)
    clients.check_told(CAUSE)
    assert status_of(server, "/ready") in (503, None)
    assert server.process.wait(timeout=START_SECONDS) == 1
    assert server.log_lines("engine_failed")[0]["error"] == CAUSE
    assert server.log_lines("stopped")


@pytest.fixture
def own_checkpoint(tmp_path, checkpoint):
    return shutil.copytree(checkpoint, tmp_path / "weights")


def test_weights_that_are_cut_short_while_they_are_used(start_server, own_checkpoint):
    server = start_server(model__path=own_checkpoint, engine__max_running=3)
    clients = Clients(server)
    os.truncate(own_checkpoint / "model.safetensors", 4096)
    clients.check_told(str(own_checkpoint))
    assert server.process.wait(timeout=START_SECONDS) == 1
    error = server.log_lines("engine_failed")[0]["error"]
    assert "model.safetensors" in error and "shorter" in error


def test_weights_that_are_replaced_or_removed_stay_in_use(start_server, own_checkpoint):
    server = start_server(model__path=own_checkpoint)
    expected = server.complete("x", max_tokens=20, seed=1, ignore_eos=True)[1]["choices"]
    file = own_checkpoint / "model.safetensors"
    other = own_checkpoint / "other"
    other.write_bytes(bytes(file.stat().st_size))
    other.rename(file)  # as a download does
    assert server.complete("x", max_tokens=20, seed=1, ignore_eos=True)[1]["choices"] == expected
    shutil.rmtree(own_checkpoint)
    assert server.complete("x", max_tokens=20, seed=1, ignore_eos=True)[1]["choices"] == expected


def test_more_than_the_cache_holds(start_server):
    """What fits into the pages there are is computed sooner or later; what never can is refused at once."""
    prompts = [f"Number {index}: " + "so it goes on, " * 20 for index in range(12)]
    options = {"max_tokens": 400, "temperature": 0, "ignore_eos": True}
    roomy = start_server()
    expected = [roomy.complete(prompt, **options)[1]["choices"][0]["text"] for prompt in prompts]
    server = start_server(kv__bytes=6 << 20, model__max_context=1024)
    found = [None] * len(prompts)

    def ask(index):
        found[index] = server.complete(prompts[index], **options)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in found] == [200] * len(prompts)
    assert [answer["choices"][0]["text"] for _, answer in found] == expected
    metrics = server.request("GET", "/metrics")[2].decode()
    line = next(line for line in metrics.splitlines() if line.startswith("mobius_preemptions_total"))
    assert float(line.split()[-1]) > 0, "the pool is too large for this test"
    status, answer = server.complete([1] * 1024)
    assert status == 400 and "1023" in answer["error"]["message"]
    server.wait_until(lambda stats: stats["pages_used"] == 0)


def test_a_killed_server_leaves_nothing_that_the_next_one_minds(start_server, tmp_path):
    """SIGKILL: nothing is written that could be half. A client sees a cut connection, not a short answer."""
    ports = {"http.port": free_port(), "grpc.port": free_port()}
    sockets = {"kv_events.endpoint": f"ipc://{tmp_path}/kv", "kv_events.replay_endpoint": f"ipc://{tmp_path}/replay"}
    for _ in range(3):
        server = start_server(**ports, **sockets)
        expected = server.complete("x", max_tokens=5, temperature=0)[1]["choices"][0]["text"]
        with server.open_stream(COMPLETIONS, {"prompt": "x", **ENDLESS}) as response:
            response.readline()
            server.process.kill()
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                response.read()
        assert server.process.wait(timeout=START_SECONDS) == -signal.SIGKILL
    server = start_server(**ports, **sockets)
    assert server.complete("x", max_tokens=5, temperature=0)[1]["choices"][0]["text"] == expected
