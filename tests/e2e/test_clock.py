"""The machine's clock is set, by days, while answers are under way: time limits do not notice."""

import json
import pathlib
import subprocess
import threading
import time

import grpc
import pytest

from server import MOBIUS

COMPLETIONS = "/v1/completions"
LIBRARIES = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
DAY = 24 * 3600


class Clock:
    """What the server believes the time of day to be, as an offset. Time that only passes stays true."""

    def __init__(self, file):
        self.file = file
        self.set(0)

    def set(self, seconds):
        draft = self.file.with_suffix(".draft")
        draft.write_text(f"{seconds:+d}\n")
        draft.rename(self.file)


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


@pytest.fixture
def server(start_server, clock):
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed")
    libraries = subprocess.run(["ldd", MOBIUS], capture_output=True, text=True, check=True).stdout
    if "libasan" in libraries or "libtsan" in libraries:
        pytest.skip("a sanitizer's runtime has to be the first library")
    return start_server(environment={
        "LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(clock.file), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"})


def created(server):
    return server.complete("x", max_tokens=1)[1]["created"]


def test_the_clock_is_set_for_real(server, clock):
    """Else the other tests would show nothing."""
    for offset in (0, 10 * DAY, -10 * DAY):
        clock.set(offset)
        assert abs(created(server) - time.time() - offset) < 600


@pytest.mark.parametrize("jump", [10 * DAY, -10 * DAY])
def test_answers_go_on_and_deadlines_are_kept(server, clock, jump):
    client = server.grpc_client()
    call = client.generate(timeout=300, text="x", options={"max_tokens": 3000, "ignore_eos": True})
    next(call)
    body = {"prompt": "x", "max_tokens": 3000, "ignore_eos": True, "mobius": {"timeout_ms": 300_000}}
    late = []

    def ask_too_much():
        late.append(server.complete("x", max_tokens=8000, ignore_eos=True, mobius={"timeout_ms": 1500}))

    thread = threading.Thread(target=ask_too_much)
    thread.start()
    with server.open_stream(COMPLETIONS, body) as response:
        response.readline()
        clock.set(jump)
        events = response.read().decode().split("\n\n")
    assert json.loads(events[-3].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert list(call)[-1].finished.usage.completion_tokens == 3000
    thread.join()
    status, answer = late[0]
    assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")
    # After the jump: what is short stays short, what is long stays long.
    begin = time.monotonic()
    assert server.complete("x", max_tokens=8000, ignore_eos=True, mobius={"timeout_ms": 500})[0] == 504
    with pytest.raises(grpc.RpcError) as error:
        list(client.generate(timeout=1, text="x", options={"max_tokens": 8000, "ignore_eos": True}))
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begin < 120
    assert server.complete("x", max_tokens=5, mobius={"timeout_ms": 300_000})[0] == 200
    server.wait_idle()
    client.close()
    assert server.stop() == 0
